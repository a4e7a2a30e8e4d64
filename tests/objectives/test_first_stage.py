"""Matching and captioning against closed forms, and with a model that shows what it was asked."""

import math

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Captions, Encoded, Matches, Progress
from isthmus.objectives.captioning import Captioning
from isthmus.objectives.matching import Matching

NOW = Progress(step=0, num_steps=1)


class Scripted:
    """Says `answer` to every pair, and that every word is as likely as another."""

    def __init__(self, answer: float, scale: float = 1.0) -> None:
        self.answer = answer
        self.scale = scale
        self.asked: list[tuple[int, int]] = []

    def logit_scale(self) -> Float[Tensor, ""]:
        return torch.tensor(self.scale)

    def logit_bias(self) -> None:
        return None

    def match(
        self, encoded: Encoded, batch: Batch, *, images: Int[Tensor, " pair"], texts: Int[Tensor, " pair"]
    ) -> Float[Tensor, "pair 2"]:
        self.asked = list(zip(images.tolist(), texts.tolist(), strict=True))
        return torch.tensor([0.0, self.answer]).expand(len(images), 2)

    def caption(self, encoded: Encoded, batch: Batch) -> Float[Tensor, "text token dim"]:
        assert batch.token_ids is not None
        return functional.one_hot(batch.token_ids, 7).float()

    def caption_logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        return hidden


def pairs_of(num: int, *, image_ids: tuple[str, ...] = ()) -> tuple[Encoded, Batch]:
    """Orthogonal pictures of two views, of which the second is the text's."""
    texts = torch.eye(num)
    encoded = Encoded(image_views=torch.stack([torch.zeros(num, num), texts], dim=1), text_vectors=texts)
    token_ids = torch.tensor([[1, 2, 3, 4], [1, 5, 6, 0], [1, 2, 0, 0], [1, 3, 3, 3]])[:num]
    names = tuple("abcd"[:num])
    return encoded, Batch(
        sample_ids=names, token_ids=token_ids, attention_mask=token_ids > 0, image_ids=image_ids
    )


def test_the_scripted_model_serves_both() -> None:
    model: object = Scripted(0.0)
    assert isinstance(model, Matches)
    assert isinstance(model, Captions)


@pytest.mark.parametrize("answer", [0.0, 2.0])
def test_matching_is_the_cross_entropy_of_one_right_pair_to_two_wrong_ones(answer: float) -> None:
    encoded, batch = pairs_of(4)
    objective = Matching(Scripted(answer))
    term = objective(encoded, batch, NOW)["matching"]
    yes = 1 / (1 + math.exp(-answer))
    assert term.count == objective.counts(batch)["matching"] == 12
    assert float(term.sum) == pytest.approx(-4 * math.log(yes) - 8 * math.log(1 - yes), rel=1e-6)


def test_wrong_pairs_are_one_picture_a_text_and_one_text_a_picture_and_never_right() -> None:
    encoded, batch = pairs_of(4)
    model = Scripted(0.0)
    for seed in range(50):
        torch.manual_seed(seed)
        Matching(model)(encoded, batch, NOW)
        right, images, texts = model.asked[:4], model.asked[4:8], model.asked[8:]
        assert right == [(0, 0), (1, 1), (2, 2), (3, 3)]
        assert [text for _, text in images] == [image for image, _ in texts] == [0, 1, 2, 3]
        assert all(image != text for image, text in images + texts)


def test_a_picture_that_is_there_twice_is_no_wrong_one() -> None:
    encoded, batch = pairs_of(4, image_ids=("same", "same", "b", "c"))
    model = Scripted(0.0)
    for seed in range(50):
        torch.manual_seed(seed)
        Matching(model)(encoded, batch, NOW)
        assert not {(0, 1), (1, 0)} & set(model.asked[4:])
    with pytest.raises(ValueError, match="at least 2 different pictures"):
        Matching(model)(*pairs_of(2, image_ids=("same", "same")), NOW)


@pytest.mark.parametrize("hardness", [1.0, 0.5, 0.0])
def test_wrong_ones_are_drawn_in_proportion_to_the_softmax_of_similarities(hardness: float) -> None:
    """Text 0 is as near to picture 1 as 0.5, times a scale of 6: picture 1 is drawn e^3 / (e^3 + 2) of the time.

    With less hardness its power is less; with none it is drawn as often as each of the two others.
    """
    encoded, batch = pairs_of(4)
    assert encoded.text_vectors is not None
    vectors = encoded.text_vectors.clone()
    vectors[0] = torch.tensor([0.75**0.5, 0.5, 0.0, 0.0])
    near = Encoded(image_views=encoded.image_views, text_vectors=vectors)
    model = Scripted(0.0, scale=6.0)
    torch.manual_seed(0)
    drawn = []
    for _ in range(400):
        drawn.append(int(Matching(model, hardness=hardness).pairs(near, batch).images[4]))
    share = math.exp(3 * hardness) / (math.exp(3 * hardness) + 2)
    assert drawn.count(1) / 400 == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)


def test_captioning_counts_the_words_after_the_first_token() -> None:
    encoded, batch = pairs_of(4)
    objective = Captioning(Scripted(0.0))
    term = objective(encoded, batch, NOW)["captioning"]
    assert term.count == objective.counts(batch)["captioning"] == 3 + 2 + 1 + 3
    # The state at a word is its own one-hot: what it says of the next one is e / (e + 6) if that is the same, else 1 / (e + 6).
    same, other = -math.log(math.e / (math.e + 6)), -math.log(1 / (math.e + 6))
    assert float(term.sum) == pytest.approx(7 * other + 2 * same, rel=1e-6)


def test_label_smoothing_spreads_a_share_of_each_target() -> None:
    encoded, batch = pairs_of(4)
    plain = float(Captioning(Scripted(0.0))(encoded, batch, NOW)["captioning"].sum)
    smooth = float(Captioning(Scripted(0.0), label_smoothing=0.1)(encoded, batch, NOW)["captioning"].sum)
    same, other = -math.log(math.e / (math.e + 6)), -math.log(1 / (math.e + 6))
    assert smooth == pytest.approx(0.9 * plain + 0.1 * 9 * (same + 6 * other) / 7, rel=1e-6)


def test_a_text_that_says_the_same_word_for_word_is_no_wrong_one() -> None:
    encoded, batch = pairs_of(4)
    assert batch.token_ids is not None
    token_ids = batch.token_ids.clone()
    token_ids[3] = token_ids[0]
    same = Batch(sample_ids=batch.sample_ids, token_ids=token_ids, attention_mask=batch.attention_mask)
    model = Scripted(0.0)
    for seed in range(50):
        torch.manual_seed(seed)
        Matching(model)(encoded, same, NOW)
        assert not {(0, 3), (3, 0)} & set(model.asked[4:])
