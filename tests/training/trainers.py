"""A trainer of the toy model, and what its tests look at."""

import json
from collections.abc import Sequence
from pathlib import Path

from isthmus.training.checkpoint import CheckpointIdentity, CheckpointStore
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import TrainableSplit, set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.trainer import Trainer

from .toy import ToyModel, ToyNextToken, ToyStream

SETTINGS = StageSettings(
    stage="align",
    seed=0,
    num_steps=6,
    precision="fp32",
    optimizer=OptimizerSettings(lr=0.05, weight_decay=0.1),
)
PARTS = ("connector", "language")


def make_trainer(
    model: ToyModel,
    stream: object = None,
    settings: StageSettings = SETTINGS,
    parts: Sequence[str] = PARTS,
    **services: object,
) -> tuple[Trainer, TrainableSplit]:
    split = set_trainable(model, parts)
    trainer = Trainer(
        model=model,
        split=split,
        objectives={"next_token": (ToyNextToken(model), 1.0)},
        stream=stream or ToyStream(),
        settings=settings,
        services=Services(**services),
    )
    return trainer, split


def records(path: Path, kind: str) -> list[dict[str, float]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def store(path: Path) -> CheckpointStore:
    return CheckpointStore(path, identity=CheckpointIdentity.here(recipe_hash="r", frozen_hash="f"), keep=9)
