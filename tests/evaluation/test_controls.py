"""Control pictures: exhaustive checks on pairings, and brute force for the most similar one."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isthmus.core.errors import DataError
from isthmus.evaluation.controls import most_similar_other, shuffled


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 2**32))
def test_no_row_gets_its_own_picture_and_each_is_used_as_before(ids: list[int], seed: int) -> None:
    assume(2 * max(Counter(ids).values()) <= len(ids))
    donors = shuffled(ids, seed)
    assert sorted(donors.tolist()) == list(range(len(ids)))
    assert all(ids[row] != ids[donor] for row, donor in enumerate(donors))
    assert donors.tolist() == shuffled(ids, seed).tolist()


def test_every_other_picture_is_equally_likely() -> None:
    counts = np.zeros((5, 5))
    for seed in range(4_000):
        counts[np.arange(5), shuffled("abcde", seed)] += 1
    assert (np.diag(counts) == 0).all()
    # 1,000 expected, standard deviation 27.
    assert np.abs(counts[~np.eye(5, dtype=bool)] - 1_000).max() < 120


def test_shuffling_that_cannot_work_is_refused() -> None:
    for ids in (["a", "a", "b"], ["a"], []):
        with pytest.raises(DataError, match="no shuffling"):
            shuffled(ids, 0)


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**32))
def test_the_most_similar_other_equals_brute_force(rows: int, chunk: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors, ids = generator.normal(size=(rows, 3)), generator.integers(0, 4, rows).tolist()
    assume(len(set(ids)) > 1)
    found = most_similar_other(torch.tensor(vectors), ids, chunk=chunk)
    for row, donor in enumerate(found):
        cosines = [
            -2.0 if ids[other] == ids[row]
            else vectors[row] @ one / np.linalg.norm(vectors[row]) / np.linalg.norm(one)
            for other, one in enumerate(vectors)
        ]  # fmt: skip
        assert donor == int(np.argmax(cosines))


def test_equally_similar_pictures_give_the_first_and_length_does_not_count() -> None:
    vectors = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.1, 0.1], [0.0, 9.0]])
    assert most_similar_other(vectors, ["a", "b", "c", "d"]).tolist() == [1, 2, 1, 1]
    # Rows 1 and 2 show one photo, so neither gets the other.
    assert most_similar_other(vectors, ["a", "b", "b", "d"]).tolist() == [1, 0, 0, 1]


def test_bad_vectors_are_refused() -> None:
    with pytest.raises(DataError, match="at least two pictures"):
        most_similar_other(torch.eye(2), ["a", "a"])
    with pytest.raises(DataError, match="2 vectors came with 3 rows"):
        most_similar_other(torch.eye(2), ["a", "b", "c"])
    with pytest.raises(DataError, match="not finite"):
        most_similar_other(torch.eye(2) * torch.inf, ["a", "b"])
