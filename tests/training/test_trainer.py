import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isthmus.core.batch import IGNORED, Batch
from isthmus.core.errors import DataError, GuardError
from isthmus.core.protocols import Encoded, Objective, Progress, Term, TrainableModel
from isthmus.training.distributed import Alone
from isthmus.training.metrics import MetricsLog
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_trainable
from isthmus.training.settings import Services, StageResult
from isthmus.training.trainer import Trainer

from .toy import ToyModel, ToyNextToken, ToyStream, merged
from .trainers import PARTS, SETTINGS, make_trainer, records


class Merged:
    """A stream whose micro-batches are joined into one."""

    def __init__(self, stream: ToyStream) -> None:
        self._stream = stream

    def micro_batches(self, step: int) -> list[Batch]:
        return [merged(self._stream.micro_batches(step))]


def test_the_toy_is_what_the_trainer_asks_for() -> None:
    assert isinstance(ToyModel(), TrainableModel)
    assert isinstance(ToyNextToken(ToyModel()), Objective)


def test_training_learns_and_leaves_frozen_parts_alone(tmp_path: Path) -> None:
    model = ToyModel()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream = ToyStream(rows=(4, 4))
    constant = [stream.micro_batches(0)] * 60

    class Repeated:
        def micro_batches(self, step: int) -> list[Batch]:
            return constant[step]

    settings = replace(SETTINGS, num_steps=60)
    trainer, split = make_trainer(model, Repeated(), settings, log=MetricsLog(tmp_path / "m.jsonl"))
    result = trainer.run()
    losses = [record["loss"] for record in records(tmp_path / "m.jsonl", "train")]
    assert losses[-1] < 0.6 * losses[0]
    assert result == StageResult(
        stage="align",
        steps=60,
        loss=result.loss,
        seconds=result.seconds,
        stopped_early=False,
        trainable=split.num_trainable,
        validation={},
    )
    assert result.loss == pytest.approx(sum(losses[-50:]) / 50)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("vision"))
    assert not torch.equal(after["connector.weight"], before["connector.weight"])
    assert after["num_updates"] == 60


@pytest.mark.parametrize("rows", [(1, 4), (2, 2, 1), (1, 1, 1, 1, 1)])
def test_accumulation_equals_the_big_batch(rows: tuple[int, ...]) -> None:
    """The micro-batches have different numbers of supervised tokens, so a mean of means would differ."""
    stream = ToyStream(rows=rows, dtype=torch.float64)
    counts = [batch.num_supervised for batch in stream.micro_batches(0)]
    assert len(set(counts)) > 1
    weights = []
    for each in (stream, Merged(stream)):
        model = ToyModel().double()
        trainer, _ = make_trainer(model, each)
        trainer.run()
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        assert (tensor - weights[1][name]).abs().max() <= 1e-12


def test_one_step_is_the_gradient_of_the_mean_over_tokens() -> None:
    model = ToyModel().double()
    stream = ToyStream(rows=(1, 4), dtype=torch.float64)
    settings = replace(SETTINGS, num_steps=1, optimizer=OptimizerSettings(clip=None), audit_steps=0)
    trainer, split = make_trainer(model, stream, settings)
    reference = ToyModel().double()
    reference.load_state_dict(model.state_dict())
    trainer.run()
    reference.eval()
    batch = merged(stream.micro_batches(0))
    hidden = reference.encode(batch).hidden
    logs = torch.log_softmax(reference.token_logits(hidden[:, :-1]), -1)
    targets = batch.targets[:, 1:]
    picked = [logs[r, t, targets[r, t]] for r in range(5) for t in range(6) if targets[r, t] != IGNORED]
    (-torch.stack(picked).mean()).backward()
    for name, parameter in split.trainable.items():
        assert torch.allclose(parameter.grad, reference.get_parameter(name).grad, rtol=0, atol=1e-12)


class Tripled(Alone):
    """Three processes that hold the same rows."""

    def all_sum(self, numbers: torch.Tensor) -> torch.Tensor:
        return 3 * numbers

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad *= 3


def test_counts_of_all_processes_divide_the_loss(tmp_path: Path) -> None:
    """Three processes with the same rows have the mean loss of one, and learn the same."""
    losses, weights = [], []
    for number, processes in enumerate((Alone(), Tripled())):
        model, log = ToyModel(), MetricsLog(tmp_path / f"{number}.jsonl")
        make_trainer(model, log=log, processes=processes)[0].run()
        losses.append([record["loss"] for record in records(tmp_path / f"{number}.jsonl", "train")])
        weights.append(model.connector.weight)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert torch.allclose(weights[0], weights[1], atol=1e-5)


class Poisoned(ToyNextToken):
    """Gives a loss, or only a gradient, that is not finite at one step."""

    def __init__(self, model: ToyModel, step: int, *, gradient: bool) -> None:
        super().__init__(model)
        self._step = step
        self._gradient = gradient
        self.weights: dict[str, torch.Tensor] = {}
        self._toy = model

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        term = super().__call__(encoded, batch, progress)["next_token"]
        if progress.step != self._step:
            return {"next_token": term}
        self.weights = {name: tensor.clone() for name, tensor in self._toy.state_dict().items()}
        zero = (encoded.hidden * 0).sum().clamp(min=0)
        poison = (
            zero.sqrt() if self._gradient else zero + math.nan
        )  # the derivative of a root at 0 is infinite
        return {"next_token": Term(sum=term.sum + poison, count=term.count)}


@pytest.mark.parametrize("gradient", [False, True])
def test_a_number_that_is_not_finite_stops_before_the_update(tmp_path: Path, gradient: bool) -> None:
    model = ToyModel()
    objective = Poisoned(model, 4, gradient=gradient)
    trainer = Trainer(
        model=model,
        split=set_trainable(model, PARTS),
        objectives={"next_token": (objective, 1.0)},
        stream=ToyStream(),
        settings=SETTINGS,
        services=Services(incidents=tmp_path),
    )
    what = "the gradient is not finite" if gradient else "the loss is not finite"
    with pytest.raises(GuardError, match=f"stage 'align', step 4: {what}.*step 4 row 0") as caught:
        trainer.run()
    assert caught.value.exit_code == 5
    assert all(torch.equal(tensor, objective.weights[name]) for name, tensor in model.state_dict().items())
    incident = json.loads((tmp_path / "incident-4.json").read_text())
    assert incident["sample_ids"][0] == "step 4 row 0"


def test_a_part_that_no_objective_reaches_stops_the_run() -> None:
    class Blind(ToyModel):
        def encode(self, batch: Batch) -> Encoded:
            hidden = self.language["tokens"](batch.token_ids)
            return Encoded(hidden=self.language["norm"](hidden))

    with pytest.raises(GuardError, match=r"connector\.bias, connector\.weight"):
        make_trainer(Blind())[0].run()


def test_a_step_without_supervised_tokens_is_an_error() -> None:
    class Silent:
        def micro_batches(self, step: int) -> list[Batch]:
            batches = ToyStream().micro_batches(step)
            return [replace(batch, targets=torch.full_like(batch.targets, IGNORED)) for batch in batches]

    with pytest.raises(
        DataError, match=r"step 0 of stage 'align' has nothing to learn for 'next_token': its 5 rows"
    ):
        make_trainer(ToyModel(), Silent())[0].run()


def test_weights_of_objectives_and_names_of_terms(tmp_path: Path) -> None:
    model = ToyModel()
    one, two = ToyNextToken(model), ToyNextToken(model)
    trainer = Trainer(
        model=model,
        split=set_trainable(model, PARTS),
        objectives={"next_token": (one, 1.0), "again": (two, 0.5)},
        stream=ToyStream(),
        settings=replace(SETTINGS, num_steps=1),
        services=Services(log=MetricsLog(tmp_path / "m.jsonl")),
    )
    trainer.run()
    record = records(tmp_path / "m.jsonl", "train")[0]
    assert record["again.next_token"] == record["next_token"]
    assert record["loss"] == pytest.approx(1.5 * record["next_token"])
    assert record["count.next_token"] == sum(batch.num_supervised for batch in ToyStream().micro_batches(0))
    assert record["rows"] == 5


def test_the_gradient_is_clipped_to_its_norm() -> None:
    model = ToyModel()
    settings = replace(SETTINGS, num_steps=1, optimizer=OptimizerSettings(clip=1e-3))
    trainer, split = make_trainer(model, settings=settings)
    trainer.run()
    norm = torch.cat([parameter.grad.flatten() for parameter in split.trainable.values()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_validation_sees_the_average_and_disturbs_nothing(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS,
        num_steps=7,
        validate_every=3,
        optimizer=OptimizerSettings(lr=0.05, ema=0.5, warmup_fraction=0),
    )
    finals = []
    for validates in (True, False):
        model = ToyModel(dropout=0.5)
        seen = []

        def validate(step: int, model: ToyModel = model, seen: list[object] = seen) -> dict[str, float]:
            assert not torch.is_grad_enabled()
            assert not any(module.training for module in model.modules())
            torch.rand(step)
            seen.append((step, model.connector.weight.clone()))
            return {"val.loss": float(step)}

        log = MetricsLog(tmp_path / f"{validates}.jsonl")
        trainer, _ = make_trainer(model, settings=settings, validate=validate if validates else None, log=log)
        result = trainer.run()
        finals.append((model.state_dict(), records(tmp_path / f"{validates}.jsonl", "train"), torch.rand(3)))
        if validates:
            assert [step for step, _ in seen] == [3, 6, 7]
            assert result.validation == {"val.loss": 7.0}
            assert torch.equal(seen[-1][1], model.connector.weight)  # the final weights are the averaged ones
            assert [r["val.loss"] for r in records(tmp_path / "True.jsonl", "validation")] == [3.0, 6.0, 7.0]
    (with_weights, with_records, with_random), (without_weights, without_records, without_random) = finals
    assert all(torch.equal(with_weights[name], without_weights[name]) for name in with_weights)
    assert [r["loss"] for r in with_records] == [r["loss"] for r in without_records]
    assert torch.equal(with_random, without_random)


BOUND = 0.01


class Bounded(ToyModel):
    """A toy whose connector is kept within bounds after each step."""

    def after_step(self, progress: Progress) -> None:
        super().after_step(progress)
        self.connector.weight.data.clamp_(-BOUND, BOUND)


def test_the_average_is_one_of_weights_in_their_bounds() -> None:
    model = Bounded()
    optimizer = replace(SETTINGS.optimizer, lr=0.5, ema=0.5)
    trainer, _ = make_trainer(
        model, ToyStream(rows=(4,)), replace(SETTINGS, num_steps=40, optimizer=optimizer)
    )
    trainer.run()
    assert 0 < model.connector.weight.abs().max() <= BOUND * (1 + 1e-6)
