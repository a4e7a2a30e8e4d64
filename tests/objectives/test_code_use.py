"""Both penalties on how codes are used, against PyTorch's own divergence and closed forms."""

import math

import pytest
import torch
from torch import distributions

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress
from isthmus.objectives.even_codes import EvenCodes
from isthmus.objectives.uniform_codes import UniformCodes


def loss(objective: UniformCodes | EvenCodes, scores: torch.Tensor) -> torch.Tensor:
    batch = Batch(sample_ids=tuple(map(str, range(len(scores)))), pixels=torch.zeros(len(scores), 3, 8, 8))
    terms = objective(Encoded(predictions=scores), batch, Progress(step=0, num_steps=1))
    assert objective.counts(batch) == {name: term.count for name, term in terms.items()}
    (term,) = terms.values()
    return term.sum / term.count


def penalty(scores: torch.Tensor) -> torch.Tensor:
    return loss(UniformCodes(), scores)


def unevenness(scores: torch.Tensor) -> torch.Tensor:
    return loss(EvenCodes(), scores)


def test_they_are_divergences_from_the_uniform_prior() -> None:
    scores = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 4
    chosen = distributions.Categorical(logits=scores)
    used = distributions.Categorical(probs=chosen.probs.mean(dim=(0, 1)))
    uniform = distributions.Categorical(probs=torch.full((7,), 1 / 7))
    expected = distributions.kl_divergence(chosen, uniform).mean()
    assert penalty(scores).item() == pytest.approx(expected.item(), rel=1e-5)
    together = distributions.kl_divergence(used, uniform)
    assert unevenness(scores).item() == pytest.approx(together.item(), rel=1e-5)
    assert together < expected / 2
    # Cut into two batches the sums add up, so micro-batches and processes share it out.
    assert (penalty(scores[:1]) + 2 * penalty(scores[1:])).item() / 3 == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize("codes", [2, 64, 512])
def test_the_use_is_even_although_each_place_is_certain(codes: int) -> None:
    places = torch.eye(codes)[:, None] * 1000.0  # picture k is of code k alone
    assert unevenness(places).item() == pytest.approx(0.0, abs=1e-5)
    assert penalty(places).item() == pytest.approx(math.log(codes), rel=1e-5)
    one = places[:1].expand(3, 2, -1)
    assert unevenness(one).item() == pytest.approx(math.log(codes), rel=1e-5)
    half = places[: codes // 2]
    assert unevenness(half).item() == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("codes", [2, 64, 8192])
def test_it_lies_between_nothing_and_the_logarithm_of_their_number(codes: int) -> None:
    equal, certain = torch.full((2, 4, codes), 3.0), torch.zeros(2, 4, codes)
    certain[..., 1] = 1000.0
    half = certain.clone()
    half[..., 0] = 1000.0
    assert penalty(equal).item() == pytest.approx(0.0, abs=1e-5)
    assert penalty(certain).item() == pytest.approx(math.log(codes), rel=1e-5)
    assert penalty(half).item() == pytest.approx(math.log(codes / 2), abs=1e-5)


def test_its_gradient_makes_the_likeliest_code_less_likely() -> None:
    scores = torch.tensor([[[2.0, 0.0, 0.0]]], requires_grad=True)
    penalty(scores).backward()
    p = scores.detach().softmax(-1)[0, 0]
    # d/ds_j of sum p ln p is p_j (ln p_j - sum p ln p).
    expected = p * (p.log() - (p * p.log()).sum())
    assert scores.grad is not None
    assert torch.allclose(scores.grad[0, 0], expected, atol=1e-6)
    assert expected[0] > 0


def test_codes_that_are_never_used_get_a_gradient_and_nothing_is_lost() -> None:
    scores = torch.zeros(4, 3, 5)
    scores[..., 0] = 8.0
    scores.requires_grad_()
    unevenness(scores).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[..., 0] > 0).all()
    assert (scores.grad[..., 1:] < 0).all()
