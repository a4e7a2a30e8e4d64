"""Each loss against its closed form, PyTorch's own, and published oracles."""

import math

import pytest
import torch
from torch import Tensor

from isthmus.core.batch import IGNORED, Batch
from isthmus.core.protocols import Contrasts, Encoded, Objective, PredictsTokens, Progress
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.next_token import NextToken

NOW = Progress(step=0, num_steps=1)


class FixedScale:
    """A model that only has a scale."""

    def __init__(self, scale: float) -> None:
        self.scale = torch.tensor(scale)

    def logit_scale(self) -> Tensor:
        return self.scale

    def logit_bias(self) -> None:
        return None


class LinearHead:
    """A model that only has an output head, and remembers how many positions reached it."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.positions = 0

    def token_logits(self, hidden: Tensor) -> Tensor:
        self.positions = hidden.shape[0]
        return hidden @ self.weight.T


def contrastive(images: Tensor, texts: Tensor, scale: float) -> float:
    objective = Contrastive(FixedScale(scale))
    batch = Batch(sample_ids=tuple(str(i) for i in range(len(texts))))
    term = objective(Encoded(image_views=images, text_vectors=texts), batch, NOW)["contrastive"]
    return float(term.sum) / term.count


def test_stand_ins_satisfy_the_protocols() -> None:
    assert isinstance(FixedScale(1.0), Contrasts)
    assert isinstance(LinearHead(torch.zeros(1, 1)), PredictsTokens)
    assert isinstance(Contrastive(FixedScale(1.0)), Objective)


@pytest.mark.parametrize(("rows", "expected"), [(2, 6.2487e-07), (4, 1.8746e-06), (8, 4.3741e-06)])
def test_orthonormal_pairs_give_the_published_loss(rows: int, expected: float) -> None:
    vectors = torch.eye(rows, dtype=torch.float64)
    value = contrastive(vectors.unsqueeze(1).float().double(), vectors, 1 / 0.07)
    assert value == pytest.approx(expected, rel=1e-4)
    assert value == pytest.approx(math.log(1 + (rows - 1) * math.exp(-1 / 0.07)), rel=1e-6)


def test_uniform_similarities_give_log_n() -> None:
    zeros = torch.zeros(5, 3)
    assert contrastive(zeros.unsqueeze(1), zeros, 10.0) == pytest.approx(math.log(5), rel=1e-6)


def test_the_best_view_counts() -> None:
    torch.manual_seed(0)
    views, texts = torch.randn(4, 3, 6), torch.randn(4, 6)
    best = torch.stack([torch.stack([(views[i] @ texts[j]).max() for j in range(4)]) for i in range(4)])
    logits = 2.0 * best
    expected = 0.0
    for i in range(4):
        expected -= (
            logits[i, i] - logits[i].logsumexp(0) + logits[i, i] - logits[:, i].logsumexp(0)
        ).item() / 8
    assert contrastive(views, texts, 2.0) == pytest.approx(expected, rel=1e-5)


def test_several_texts_of_a_picture_share_its_target() -> None:
    torch.manual_seed(0)
    images, texts, own = torch.randn(3, 1, 6), torch.randn(5, 6), torch.tensor([0, 0, 1, 2, 2])
    logits = 2.0 * images[:, 0] @ texts.T
    to_image = -sum(logits[own[t], t] - logits[:, t].logsumexp(0) for t in range(5)) / 5
    per_image = [
        sum(logits[i, t] - logits[i].logsumexp(0) for t in range(5) if own[t] == i) / (own == i).sum()
        for i in range(3)
    ]
    expected = (to_image - sum(per_image) / 3) / 2
    batch = Batch(sample_ids=("a", "b", "c"), image_of_text=own)
    encoded = Encoded(image_views=images, text_vectors=texts)
    term = Contrastive(FixedScale(2.0))(encoded, batch, NOW)["contrastive"]
    assert term.count == 3
    assert term.sum.item() / 3 == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_spreads_a_share_of_both_targets_over_the_batch() -> None:
    """BLIP-2's contrast: a share of 0.1 goes evenly to all texts of the batch, and to all pictures."""
    torch.manual_seed(0)
    images, texts = torch.randn(4, 1, 6), torch.randn(4, 6)
    logits = (2.0 * images[:, 0] @ texts.T).tolist()
    expected = 0.0
    for way in (logits, list(map(list, zip(*logits, strict=True)))):
        for own, row in enumerate(way):
            over = math.log(sum(map(math.exp, row)))
            expected -= sum((0.9 * (one == own) + 0.1 / 4) * (row[one] - over) for one in range(4)) / 8
    encoded, batch = Encoded(image_views=images, text_vectors=texts), Batch(sample_ids=("a", "b", "c", "d"))
    term = Contrastive(FixedScale(2.0), label_smoothing=0.1)(encoded, batch, NOW)["contrastive"]
    assert term.sum.item() / 4 == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        contrastive(torch.ones(1, 1, 2), torch.ones(1, 2), 1.0)


def test_next_token_shifts_once_and_sends_only_supervised_rows_to_the_head() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 4), torch.randn(11, 4)
    targets = torch.tensor([[9, IGNORED, 3, 4, IGNORED], [IGNORED, IGNORED, IGNORED, IGNORED, 10]])
    head = LinearHead(weight)
    term = NextToken(head)(Encoded(hidden=hidden), Batch(sample_ids=("a", "b"), targets=targets), NOW)[
        "next_token"
    ]
    expected = 0.0
    for row, place in ((0, 2), (0, 3), (1, 4)):
        expected -= (hidden[row, place - 1] @ weight.T).log_softmax(0)[targets[row, place]].item()
    assert term.count == 3
    assert head.positions == 3
    assert float(term.sum) == pytest.approx(expected, rel=1e-5)


def test_uniform_logits_give_log_vocabulary_whatever_the_smoothing() -> None:
    batch = Batch(sample_ids=("a",), targets=torch.tensor([[IGNORED, 1, 2]]))
    for smoothing in (0.0, 0.1):
        objective = NextToken(LinearHead(torch.zeros(7, 4)), label_smoothing=smoothing)
        term = objective(Encoded(hidden=torch.randn(1, 3, 4)), batch, NOW)["next_token"]
        assert float(term.sum) / term.count == pytest.approx(math.log(7), rel=1e-6)
        assert objective.counts(batch) == {"next_token": 2}
