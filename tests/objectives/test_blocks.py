"""A loss cut into blocks of the batch is the loss of the batch, and needs no memory in the square of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.representations import (
    Block,
    Compares,
    Representations,
    joined,
    share_in_blocks,
    whole,
)
from isthmus.objectives.sigmoid import Sigmoid


class Factors(nn.Module):
    """A model that only has a scale and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def logit_scale(self) -> Tensor:
        return self.scale

    def logit_bias(self) -> Tensor:
        return self.bias


LOSSES: list[Callable[[Factors], Compares]] = [
    Contrastive,
    lambda factors: Contrastive(factors, label_smoothing=0.1),
    Sigmoid,
]


def drawn(num_images: int, *, views: int = 1, dim: int = 6) -> Representations:
    """Random vectors, with two texts for every third picture."""
    torch.manual_seed(num_images)
    own = torch.cat([torch.arange(num_images), torch.arange(0, num_images, 3)]).sort().values
    return Representations(
        image_views=torch.randn(num_images, views, dim, dtype=torch.float64, requires_grad=True),
        text_vectors=torch.randn(len(own), dim, dtype=torch.float64, requires_grad=True),
        image_of_text=own,
    )


def gradients(loss: Tensor, given: Representations, factors: Factors) -> list[Tensor | None]:
    wanted = [given.image_views, given.text_vectors, factors.scale, factors.bias]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True))


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("at_once", [1, 3, 4, 99])
def test_blocks_of_any_size_give_the_loss_and_gradients_of_the_batch(
    make: Callable[[Factors], Compares], at_once: int
) -> None:
    factors, given = Factors(), drawn(7, views=2)
    objective = make(factors)
    assert isinstance(objective, Compares)
    once = objective.share(given, whole(given))
    cut = share_in_blocks(objective, given, whole(given), at_once=at_once)
    assert cut.item() == pytest.approx(once.item(), rel=1e-13)
    for mine, expected in zip(gradients(cut, given, factors), gradients(once, given, factors), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", LOSSES)
def test_shares_of_two_halves_add_up_to_the_loss(make: Callable[[Factors], Compares]) -> None:
    objective, given = make(Factors()), drawn(6)
    halves = [
        Block(images=slice(0, 2), texts=slice(0, 3)),
        Block(images=slice(2, 6), texts=slice(3, len(given.image_of_text))),
    ]
    total = sum(objective.share(given, half).item() for half in halves)
    assert total == pytest.approx(objective.share(given, whole(given)).item(), rel=1e-13)


def test_joined_batches_number_their_pictures_anew() -> None:
    first, second = drawn(3), drawn(4)
    both = joined([first, second])
    assert both.image_of_text.tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6]
    assert torch.equal(both.image_views, torch.cat([first.image_views, second.image_views]))
    assert torch.equal(both.text_vectors, torch.cat([first.text_vectors, second.text_vectors]))


@pytest.mark.parametrize("make", LOSSES)
def test_what_is_kept_for_the_backward_pass_grows_with_the_batch_and_not_its_square(
    make: Callable[[Factors], Compares],
) -> None:
    objective = make(Factors())

    def kept(num_images: int) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        given = drawn(num_images)
        with saved_tensors_hooks(note, lambda tensor: tensor):
            share_in_blocks(objective, given, whole(given), at_once=16)
        return sum(sizes.values())

    assert kept(512) <= 2.2 * kept(256)
