"""Naming a picture's class: by the nearest class vector, made of prompts, or by a linear classifier of features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.errors import DataError

PROMPTS = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a photograph of one {}.",
    "a close view of a {}.",
    "a {} seen from far away.",
    "a {} in the middle of the picture.",
    "a bright picture of a {}.",
    "a dark picture of a {}.",
    "a blurred photo of a {}.",
    "a sharp photo of a {}.",
    "a small {}.",
    "a large {}.",
    "part of a {}.",
    "a {} on a plain background.",
    "a {} outdoors.",
    "a {} indoors.",
    "a drawing of a {}.",
    "this is a {}.",
)
"""What is said of a class where a recipe gives no prompts; averaging several names it better than one
(Radford et al., 2021, section 3.1.4)."""

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the squared norm among which a probe chooses."""


def class_names(labels: Sequence[str], *, origin: str) -> tuple[str, ...]:
    """The classes of some samples, sorted.

    Raises:
        DataError: A sample has no class, or all have the same.
    """
    names = tuple(sorted(set(labels)))
    if "" in names:
        raise DataError(
            f"{sum(not label for label in labels)} samples of {origin} have no class; expected one each, as scenes "
            "with single: shape have"
        )
    if len(names) < 2:
        raise DataError(f"all samples of {origin} are of class '{names[0]}'; expected at least two classes")
    return names


def class_vectors(prompts: Float[Tensor, "name prompt dim"]) -> Float[Tensor, "name dim"]:
    """One unit vector a class: its prompts' unit vectors averaged, and the mean normalised again."""
    mean = reduce(functional.normalize(prompts, dim=-1), "name prompt dim -> name dim", "mean")
    return functional.normalize(mean, dim=-1)


@final
@dataclass(frozen=True)
class Probe:
    """A linear classifier of features that were brought to zero mean and unit spread.

    Attributes:
        mean: Of each feature.
        spread: Of each feature.
        weights: One row a class, the last entry its bias.
    """

    mean: Float[Tensor, " dim"]
    spread: Float[Tensor, " dim"]
    weights: Float[Tensor, "class dim_and_bias"]

    def __call__(self, features: Float[Tensor, "row dim"]) -> Int[Tensor, " row"]:
        """The class of each row."""
        return (_with_bias((features - self.mean) / self.spread) @ self.weights.T).argmax(dim=1)


def fit_probe(
    features: Float[Tensor, "row dim"], labels: Int[Tensor, " row"], *, num_classes: int, penalty: float
) -> Probe:
    """Multinomial logistic regression by L-BFGS (Radford et al., 2021, appendix A.3), to its one optimum.

    Args:
        features: Of a frozen encoder.
        labels: The class of each row.
        num_classes: How many there are.
        penalty: Weight of the squared norm of the weights (biases have none) beside the mean loss.
    """
    features = features.double()
    mean = features.mean(dim=0)
    spread = features.std(dim=0, correction=0).clamp(min=1e-6)
    inputs = _with_bias((features - mean) / spread)
    weights = torch.zeros(num_classes, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-9)

    def loss() -> Tensor:
        solver.zero_grad()
        value = (
            functional.cross_entropy(inputs @ weights.T, labels) + penalty * weights[:, :-1].square().sum()
        )
        value.backward()
        return value

    solver.step(loss)
    return Probe(mean, spread, weights.detach())


def choose_probe(
    train: tuple[Float[Tensor, "row dim"], Int[Tensor, " row"]],
    val: tuple[Float[Tensor, "other dim"], Int[Tensor, " other"]],
    *,
    num_classes: int,
) -> tuple[Probe, float]:
    """The probe whose penalty is best on `val`, the larger penalty where several are, and that penalty."""
    best: tuple[float, Probe, float] | None = None
    for penalty in PENALTIES:
        probe = fit_probe(*train, num_classes=num_classes, penalty=penalty)
        right = float((probe(val[0].double()) == val[1]).double().mean())
        if best is None or right >= best[0]:
            best = (right, probe, penalty)
    assert best is not None
    return best[1], best[2]


def _with_bias(features: Float[Tensor, "row dim"]) -> Float[Tensor, "row dim_and_bias"]:
    ones = torch.ones(features.shape[0], dtype=features.dtype)
    return torch.cat([features, rearrange(ones, "row -> row 1")], dim=1)
