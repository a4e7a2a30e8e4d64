"""Classes by prompts and by a probe, against closed forms and a solver of another kind."""

import numpy as np
import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.evaluation.classes import PROMPTS, choose_probe, class_names, class_vectors, fit_probe


def clouds(rows: int, *, seed: int = 0, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    centres = apart * torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return centres[labels] + torch.randn(rows, 4, generator=generator) * torch.tensor([1, 1, 1, 50.0]), labels


def test_a_class_is_the_direction_of_the_mean_of_unit_vectors() -> None:
    prompts = torch.tensor([[[3.0, 0.0], [0.0, 0.1]], [[-1.0, 0.0], [-5.0, 0.0]]])
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]])
    assert torch.allclose(class_vectors(prompts), expected), (
        "each prompt counts as much, however long its vector"
    )


def test_the_built_in_prompts_name_the_class_once() -> None:
    assert len(set(PROMPTS)) == len(PROMPTS) > 10
    assert all(prompt.count("{}") == 1 for prompt in PROMPTS)


def test_a_probe_is_at_the_optimum() -> None:
    features, labels = clouds(90)
    probe = fit_probe(features, labels, num_classes=3, penalty=0.01)
    inputs = torch.cat([(features.double() - probe.mean) / probe.spread, torch.ones(90, 1)], dim=1)
    weights = probe.weights.clone().requires_grad_()
    loss = (
        torch.nn.functional.cross_entropy(inputs @ weights.T, labels) + 0.01 * weights[:, :-1].square().sum()
    )
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() < 1e-5
    # Plain gradient descent, from elsewhere, ends at the same place: the problem is convex.
    other = torch.randn(
        3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    for _ in range(1500):
        value = (
            torch.nn.functional.cross_entropy(inputs @ other.T, labels) + 0.01 * other[:, :-1].square().sum()
        )
        (step,) = torch.autograd.grad(value, other)
        other = (other - 0.5 * step).detach().requires_grad_()
    assert (other[:, :-1] - probe.weights[:, :-1]).abs().max() < 1e-3
    held_out, truth = clouds(300, seed=1)
    assert float((probe(held_out.double()) == truth).double().mean()) > 0.75


def test_the_penalty_is_chosen_on_other_rows() -> None:
    train, val = clouds(30, apart=0.5), clouds(300, seed=2, apart=0.5)
    probe, penalty = choose_probe(train, val, num_classes=3)
    shares = {
        weight: float(
            (fit_probe(*train, num_classes=3, penalty=weight)(val[0].double()) == val[1]).double().mean()
        )
        for weight in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    }
    assert shares[penalty] == max(shares.values())
    assert float((probe(val[0].double()) == val[1]).double().mean()) == shares[penalty]


def test_chance_labels_are_right_by_chance() -> None:
    features, labels = clouds(300)
    mixed = labels[torch.from_numpy(np.random.default_rng(0).permutation(300))]
    held_out, truth = clouds(600, seed=1)
    right = (
        (fit_probe(features, mixed, num_classes=3, penalty=0.01)(held_out.double()) == truth).double().mean()
    )
    assert 0.15 < float(right) < 0.5


def test_samples_without_classes_are_refused() -> None:
    with pytest.raises(DataError, match="2 samples of a folder have no class"):
        class_names(["ring", "", ""], origin="a folder")
    with pytest.raises(DataError, match="all samples of a folder are of class 'ring'"):
        class_names(["ring", "ring"], origin="a folder")
    assert class_names(["star", "ring", "star"], origin="") == ("ring", "star")
