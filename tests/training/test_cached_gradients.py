"""Micro-batches of a loss that compares the whole batch: the gradient of the batch, within the memory of a micro-batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Objective, Progress, Term
from isthmus.core.randomness import seed_of
from isthmus.nn.drop_path import DropPath
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.sigmoid import Sigmoid
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_modes, set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.trainer import Trainer

from .pairs import PairModel, PairStream

SETTINGS = StageSettings(
    stage="pairs",
    seed=5,
    num_steps=1,
    precision="fp32",
    audit_steps=0,
    optimizer=OptimizerSettings(lr=0.01, clip=None),
)


class Overlap:
    """An objective of the ordinary kind: how alike each text is to its own picture."""

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"overlap": len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        alike = (encoded.image_views[:, 0] * encoded.text_vectors).sum()
        return {"overlap": Term(sum=-alike, count=len(batch))}


def objectives_of(model: PairModel, weights: Mapping[str, float]) -> dict[str, tuple[Objective, float]]:
    every = {"contrastive": Contrastive(model), "sigmoid": Sigmoid(model), "overlap": Overlap()}
    return {name: (every[name], weight) for name, weight in weights.items()}


def trained(
    model: PairModel,
    stream: PairStream,
    weights: Mapping[str, float],
    parts: Sequence[str] = ("image", "text", "scale"),
) -> dict[str, Tensor]:
    """Gradients of the one step a trainer does."""
    split = set_trainable(model, parts)
    Trainer(
        model=model,
        split=split,
        objectives=objectives_of(model, weights),
        stream=stream,
        settings=SETTINGS,
        services=Services(),
    ).run()
    return {name: parameter.grad for name, parameter in split.trainable.items() if parameter.grad is not None}


def written_out(
    model: PairModel, batches: Sequence[Batch], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """The gradient by autograd alone: every activation kept, one matrix of similarities, PyTorch's own losses."""
    set_trainable(model, ("image", "text", "scale"))
    set_modes(model)
    encoded = []
    for number, batch in enumerate(batches):
        torch.manual_seed(seed_of(5, "pairs", 0, *((number,) if number else ())))
        encoded.append(model.encode(batch))
    images = torch.cat([one.image_views[:, 0] for one in encoded])
    texts = torch.cat([one.text_vectors for one in encoded])
    logits, own = model.scale[0] * images @ texts.T, torch.arange(len(images))
    softmax = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    signs = 2 * torch.eye(len(images)) - 1
    sigmoid = functional.softplus(-signs * (logits + model.scale[1])).sum() / len(images)
    overlap = -(images * texts).sum() / len(images)
    values = {"contrastive": softmax, "sigmoid": sigmoid, "overlap": overlap}
    sum(weight * values[name] for name, weight in weights.items()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Gradients around 0.01 to 1; measured differences are below 1e-16."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-12, name


@pytest.mark.parametrize("rows", [(4, 4, 4), (2,) * 6, (5, 7), (1,) * 12])
@pytest.mark.parametrize(
    "weights",
    [
        {"contrastive": 1.0},
        {"sigmoid": 0.5},
        {"contrastive": 2.0, "sigmoid": 0.3, "overlap": 0.7},
    ],
)
def test_with_dropout_the_gradient_is_that_of_one_big_graph(
    rows: tuple[int, ...], weights: dict[str, float]
) -> None:
    found = trained(PairModel(), PairStream(rows), weights)
    assert_alike(found, written_out(PairModel(), PairStream(rows).micro_batches(0), weights))


def test_updates_that_are_left_out_are_left_out_in_both_passes() -> None:
    rows, weights = (4, 5, 3), {"contrastive": 1.0, "sigmoid": 0.3}

    def model() -> PairModel:
        made = PairModel()
        made.image[2] = DropPath(0.4)
        return made

    found = trained(model(), PairStream(rows), weights)
    assert_alike(found, written_out(model(), PairStream(rows).micro_batches(0), weights))


def test_dropout_is_on_and_each_micro_batch_has_its_own() -> None:
    rows, weights = (6, 6), {"contrastive": 1.0}
    dropped = trained(PairModel(), PairStream(rows), weights)
    kept = trained(PairModel(dropout=0.0), PairStream(rows), weights)
    assert (dropped["image.3.weight"] - kept["image.3.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["contrastive", "sigmoid"])
@pytest.mark.parametrize("texts", [1, 3])
def test_without_dropout_micro_batches_equal_the_big_batch(name: str, texts: int) -> None:
    whole = trained(PairModel(dropout=0.0), PairStream([12], texts_a_picture=texts), {name: 1.0})
    for rows in ((6, 6), (4, 4, 4), (1,) * 12):
        found = trained(PairModel(dropout=0.0), PairStream(rows, texts_a_picture=texts), {name: 1.0})
        assert_alike(found, whole)


def test_parts_that_do_not_learn_get_no_gradient() -> None:
    found = trained(PairModel(), PairStream((4, 4)), {"contrastive": 1.0}, parts=["text"])
    assert {name.split(".")[0] for name in found} == {"text"}


def test_no_forward_pass_with_a_graph_sees_more_than_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, encode = [], PairModel.encode

    def noted(model: PairModel, batch: Batch) -> Encoded:
        seen.append((torch.is_grad_enabled(), len(batch)))
        return encode(model, batch)

    monkeypatch.setattr(PairModel, "encode", noted)
    trained(PairModel(), PairStream((4, 4, 4)), {"contrastive": 1.0})
    assert seen == [(False, 4)] * 3 + [(True, 4)] * 3
    seen.clear()
    trained(PairModel(), PairStream((12,)), {"contrastive": 1.0})
    assert seen == [(True, 12)]


def test_the_records_hold_the_loss_of_the_whole_batch() -> None:
    weights, losses = {"contrastive": 2.0, "sigmoid": 0.3, "overlap": 0.7}, []
    for rows in ((12,), (4, 4, 4)):
        model = PairModel(dropout=0.0)
        split = set_trainable(model, ("image", "text", "scale"))
        result = Trainer(
            model=model,
            split=split,
            objectives=objectives_of(model, weights),
            stream=PairStream(rows),
            settings=replace(SETTINGS, num_steps=3),
            services=Services(),
        ).run()
        losses.append(result.loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
