"""Slow copies, queues and the loss they serve, against closed forms and a loop over pairs."""

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Remembers, SlowVectors
from isthmus.models.momentum import MomentumForm, Queue
from isthmus.objectives.momentum_contrastive import MomentumContrastive


def unit(*shape: int, seed: int) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=-1, keepdim=True)


def test_a_queue_gives_the_places_of_the_oldest_to_the_newest() -> None:
    """Batches of 3 into 7 places, so that batches lie across the end; against a plain list."""
    queue, seen = Queue(length=7, embed_dim=2), []
    for step in range(9):
        batch = torch.full((3, 2), float(step)) + torch.arange(3).unsqueeze(1) / 10
        queue.add(batch)
        seen += batch.tolist()
        assert sorted(queue().tolist()) == sorted(seen[-7:])
    queue.clear()
    assert queue().shape == (0, 2)


def test_a_batch_longer_than_the_queue_leaves_its_end() -> None:
    queue = Queue(length=4, embed_dim=1)
    queue.add(torch.arange(3.0).unsqueeze(1))
    queue.add(torch.arange(10.0, 20.0).unsqueeze(1))
    assert sorted(queue().flatten().tolist()) == [16.0, 17.0, 18.0, 19.0]


def test_soft_targets_rise_over_the_first_steps() -> None:
    form = MomentumForm(soft=0.4, ramp=0.1)
    shares = [form.soft_share(Progress(step=step, num_steps=200)) for step in (0, 5, 10, 20, 199)]
    assert shares == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.4])
    assert replace(form, ramp=0.0).soft_share(Progress(step=0, num_steps=1)) == 0.4


class Scripted:
    """Gives what it was given."""

    def __init__(self, slow: SlowVectors, *, scale: float, soft: float) -> None:
        self.slow = slow
        self.scale = scale
        self.soft = soft

    def logit_scale(self) -> Float[Tensor, ""]:
        return torch.tensor(self.scale)

    def logit_bias(self) -> None:
        return None

    def slow_vectors(self, batch: Batch) -> SlowVectors:
        return self.slow

    def soft_share(self, progress: Progress) -> float:
        return self.soft


def by_loop(
    found: Tensor, candidates: Tensor, slow: Tensor, hard: list[list[float]], *, soft: float
) -> float:
    """The mean cross-entropy of one direction, pair by pair."""
    total = 0.0
    for row, vector in enumerate(found):
        scores = [5.0 * float(vector @ one) for one in candidates]
        alike = [5.0 * float(slow[row] @ one) for one in candidates]
        over, under = math.log(sum(map(math.exp, scores))), sum(map(math.exp, alike))
        for score, other, due in zip(scores, alike, hard[row], strict=True):
            target = soft * math.exp(other) / under + (1 - soft) * due
            total -= target * (score - over)
    return total / len(found)


@pytest.mark.parametrize("soft", [0.0, 0.4])
def test_the_loss_is_that_of_every_pair_with_batch_and_memory(soft: float) -> None:
    """Three pictures, of which the first has two texts; two pictures and three texts of earlier batches."""
    slow = SlowVectors(
        images=unit(3, 4, seed=1),
        texts=unit(4, 4, seed=2),
        earlier_images=unit(2, 4, seed=3),
        earlier_texts=unit(3, 4, seed=4),
    )
    views, texts = unit(3, 1, 4, seed=5), unit(4, 4, seed=6)
    batch = Batch(
        sample_ids=("a", "b", "c"),
        token_ids=torch.zeros(4, 2, dtype=torch.long),
        image_of_text=torch.tensor([0, 0, 1, 2]),
    )
    model: object = Scripted(slow, scale=5.0, soft=soft)
    assert isinstance(model, Remembers)
    term = MomentumContrastive(model)(
        Encoded(image_views=views, text_vectors=texts), batch, Progress(step=3, num_steps=9)
    )["contrastive"]
    every_text = torch.cat([slow.texts, slow.earlier_texts])
    every_image = torch.cat([slow.images, slow.earlier_images])
    owned = [[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0]]
    owner = [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    expected = by_loop(views[:, 0], every_text, slow.images, owned, soft=soft)
    expected += by_loop(texts, every_image, slow.texts, owner, soft=soft)
    assert term.count == 3
    assert float(term.sum) / 3 == pytest.approx(expected / 2, rel=1e-5)
