"""One small run with dropout, accumulation, averaging and validation, which tests kill and resume."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from isthmus.training.audit import frozen_hash
from isthmus.training.checkpoint import CheckpointIdentity, CheckpointStore, TensorWriter
from isthmus.training.durability import write_tensors
from isthmus.training.metrics import TIMINGS, MetricsLog
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.signals import StopSignals
from isthmus.training.trainer import Trainer

from ..training.toy import ToyModel, ToyNextToken, ToyStream

NUM_STEPS = 12
CHECKPOINT_EVERY = 4
VALIDATE_EVERY = 3
SETTINGS = StageSettings(
    stage="align",
    seed=0,
    num_steps=NUM_STEPS,
    optimizer=OptimizerSettings(lr=0.05, lr_by_part={"language": 0.01}, weight_decay=0.1, ema=0.9),
    precision="fp32",
    validate_every=VALIDATE_EVERY,
    checkpoint_every=CHECKPOINT_EVERY,
)


class Run:
    """The run in one directory, as a new process would build it."""

    def __init__(
        self,
        directory: Path,
        *,
        write: TensorWriter = write_tensors,
        before_step: Callable[[int], None] = lambda step: None,
        in_validation: Callable[[int], None] = lambda step: None,
        stop: StopSignals | None = None,
        recipe_hash: str = "recipe",
    ) -> None:
        self.directory = directory
        self.model = ToyModel(dropout=0.3)
        self._in_validation = in_validation
        split = set_trainable(self.model, ["connector", "language"])
        identity = CheckpointIdentity.here(
            recipe_hash=recipe_hash, frozen_hash=frozen_hash(self.model, split)
        )
        self.store = CheckpointStore(directory / "checkpoints", identity=identity, write=write)

        class Stream(ToyStream):
            def micro_batches(self, step: int) -> list[object]:
                before_step(step)
                return super().micro_batches(step)

        self.trainer = Trainer(
            model=self.model,
            split=split,
            objectives={"next_token": (ToyNextToken(self.model), 1.0)},
            stream=Stream(rows=(3, 2)),
            settings=SETTINGS,
            services=Services(
                validate=self._validate,
                log=MetricsLog(directory / "metrics.jsonl"),
                checkpoints=self.store,
                stop=stop,
            ),
        )

    def _validate(self, step: int) -> Mapping[str, float]:
        self._in_validation(step)
        batch = ToyStream(seed=1).micro_batches(0)[0]
        hidden = self.model.encode(batch).hidden
        return {"val.mean": float(self.model.token_logits(hidden).mean() + torch.rand(()))}

    def outcome(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict[str, object]]]:
        """Final weights, last checkpoint (weights before averaging, averages, optimizer), records without timings."""
        lines = (self.directory / "metrics.jsonl").read_text().splitlines()
        records = [
            {key: value for key, value in json.loads(line).items() if key not in TIMINGS} for line in lines
        ]
        checkpoint = self.store.load_latest()
        assert checkpoint is not None
        assert checkpoint.step == NUM_STEPS
        return self.model.state_dict(), checkpoint.tensors, records
