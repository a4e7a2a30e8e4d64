"""Retrieval ranks against brute force over plain Python numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.retrieval import (
    compare_recall,
    equal_captions,
    first_of_equal,
    rank_scores,
    rank_vectors,
)


def brute_force(scores: list[list[float]], photo_of_text: list[int]) -> tuple[list[int], list[int]]:
    """Rank by the definition, one pair at a time."""
    by_text, by_image = [], []
    for text, photo in enumerate(photo_of_text):
        others = [row[text] for image, row in enumerate(scores) if image != photo]
        by_text.append(1 + sum(other >= scores[photo][text] for other in others))
    for image, row in enumerate(scores):
        best = max(score for text, score in enumerate(row) if photo_of_text[text] == image)
        others = [score for text, score in enumerate(row) if photo_of_text[text] != image]
        by_image.append(1 + sum(other >= best for other in others))
    return by_text, by_image


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], int]:
    """Small whole-number vectors, so that exact ties are common; every photo has a caption."""
    num_images, dim = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    extra = draw(st.lists(st.integers(0, num_images - 1), max_size=8))
    photo_of_text = draw(st.permutations([*range(num_images), *extra]))

    def vectors(count: int) -> np.ndarray:
        numbers = draw(st.lists(st.integers(-2, 2), min_size=count * dim, max_size=count * dim))
        return np.array(numbers, dtype=np.float32).reshape(count, dim)

    return vectors(num_images), vectors(len(photo_of_text)), photo_of_text, draw(st.integers(1, 5))


@settings(deadline=None, max_examples=200)
@given(problems())
def test_ranks_equal_brute_force(problem: tuple[np.ndarray, np.ndarray, list[int], int]) -> None:
    images, texts, photo_of_text, chunk = problem
    expected = brute_force((images @ texts.T).tolist(), photo_of_text)
    photos = torch.tensor(photo_of_text)
    by_vectors = rank_vectors(torch.tensor(images), torch.tensor(texts), photos, chunk=chunk)
    by_scores = rank_scores(torch.tensor(images @ texts.T), photos)
    for found in (by_vectors, by_scores):
        assert (found.text_to_image.ranks.tolist(), found.image_to_text.ranks.tolist()) == expected


@pytest.mark.parametrize("chunk", [7, 64, 512])
def test_a_model_that_gives_every_pair_the_same_score_never_hits(chunk: int) -> None:
    # A width and values at which matrix products of equal rows differ in their last bits on many machines.
    images = torch.full((101, 333), 0.1).div(333**0.5)
    texts = torch.linspace(-1, 1, 333).exp().repeat(505, 1)
    found = rank_vectors(images, texts, torch.arange(505) // 5, chunk=chunk)
    for k in (1, 5, 10):
        assert not found.text_to_image.hits(k).any()
        assert not found.image_to_text.hits(k).any()
    assert (found.text_to_image.ranks == 101).all()
    assert (found.image_to_text.ranks == 501).all()


def test_perfect_vectors_always_hit_and_numbers_go_to_json() -> None:
    eye = torch.eye(12)
    found = rank_vectors(eye, eye.repeat_interleave(5, dim=0), torch.arange(60) // 5)
    numbers = found.to_json(generator=np.random.default_rng(0))
    assert numbers["text_to_image"]["recall_at_1"]["value"] == 1.0
    assert numbers["image_to_text"]["recall_at_10"]["n"] == 12
    assert numbers["text_to_image"]["median_rank"]["value"] == 1.0
    assert 0 < numbers["text_to_image"]["recall_at_1"]["low"] < 1


def test_chance_is_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    hits, medians = [], []
    for _ in range(20):
        images, texts = torch.randn(200, 16, generator=generator), torch.randn(1000, 16, generator=generator)
        ranking = rank_vectors(images, texts, torch.arange(1000) // 5).text_to_image
        hits.append(ranking.hits(10).mean())
        medians.append(np.median(ranking.ranks))
    # 20,000 queries: one standard deviation of the share is 0.0015.
    assert np.mean(hits) == pytest.approx(10 / 200, abs=0.005)
    assert np.mean(medians) == pytest.approx(100, abs=5)


def test_captions_that_another_photo_has_are_counted_and_miss() -> None:
    """By hand: photo 0 says `a` twice, which is its own; photos 1 and 2 share `b`, so 2 of 6 cannot be told apart."""
    captions, photos = ["a", "A ", "B  c", "b c", "d", "e"], [0, 0, 1, 2, 2, 3]
    assert equal_captions(captions, photos) == pytest.approx(2 / 6)
    assert equal_captions(["x", "y"], [0, 1]) == 0.0
    assert equal_captions([], []) == 0.0
    eye = torch.eye(3)
    twins = rank_vectors(eye, eye[[0, 0, 2]], torch.arange(3))
    assert twins.text_to_image.hits(1).tolist() == [True, False, True]
    assert twins.image_to_text.hits(1).tolist() == [False, False, True]


def test_recalls_are_compared_on_the_same_queries() -> None:
    eye = torch.eye(40)
    good = rank_vectors(eye, eye, torch.arange(40)).text_to_image
    half = rank_vectors(eye, torch.cat([eye[:20], eye[20:].roll(1, dims=0)]), torch.arange(40)).text_to_image
    found = compare_recall(good, half, 1, generator=np.random.default_rng(0))
    assert (found.value, found.low > 0, found.p < 0.01, found.n) == (0.5, True, True, 40)


def test_recall_that_cannot_miss_is_refused() -> None:
    eye = torch.eye(5)
    ranking = rank_vectors(eye, eye, torch.arange(5)).text_to_image
    assert ranking.hits(4).all()
    with pytest.raises(DataError, match="recall at 5 cannot miss"):
        ranking.hits(5)
    with pytest.raises(UsageError, match="recall at 0"):
        ranking.hits(0)


def test_bad_input_is_refused() -> None:
    eye = torch.eye(3)
    with pytest.raises(DataError, match="1 of 3 photos without a caption"):
        rank_vectors(eye, eye, torch.tensor([0, 0, 1]))
    with pytest.raises(DataError, match="1 captions of no photo"):
        rank_vectors(eye, torch.cat([eye, eye[:1]]), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(DataError, match="text vector 2 is not finite"):
        rank_vectors(eye, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, torch.nan, 0]]), torch.arange(3))
    with pytest.raises(DataError, match="do not fit"):
        rank_vectors(eye, torch.eye(4), torch.arange(4))
    with pytest.raises(DataError, match="0 of 0 photos"):
        rank_vectors(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(DataError, match="finite"):
        rank_scores(eye * torch.nan, torch.arange(3))


def test_the_first_of_equal_texts_stands_for_all() -> None:
    assert first_of_equal([(1, 2), (3,), (1, 2), (2, 1), (3,)]).tolist() == [0, 1, 0, 3, 1]
    assert first_of_equal([]).tolist() == []
