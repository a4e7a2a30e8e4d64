"""TF-IDF against numbers worked out by hand, ridge regression against its own definition."""

import math

import numpy as np
import pytest

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.ridge import fit_caption_ridge, fit_ridge, learn_weights, words_of


def test_words_are_lower_case_and_have_two_letters_or_more() -> None:
    assert words_of("A dog 's ball , a BLUE one-eyed cat .") == ["dog", "ball", "blue", "one", "eyed", "cat"]


def test_tf_idf_equals_the_numbers_by_hand() -> None:
    texts = ["red dog", "red red cat", "blue dog runs"]
    weights = learn_weights(texts, min_texts=1)
    assert sorted(weights.places) == ["blue", "cat", "dog", "red", "runs"]
    common, rare = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    length = math.hypot(2 * common, rare)
    found = weights.vectors(["red red cat", "zebra"])
    expected = {"red": 2 * common / length, "cat": rare / length}
    assert found[0] == pytest.approx([expected.get(word, 0.0) for word in weights.places])
    assert not found[1].any()


def test_plain_idf_gives_no_weight_to_a_word_in_every_text() -> None:
    weights = learn_weights(["the dog", "the cat"], min_texts=1, idf="plain")
    assert weights.idf[weights.places["the"]] == 0.0
    assert weights.idf[weights.places["dog"]] == pytest.approx(math.log(2))


def test_rare_words_are_left_out_by_texts_and_not_by_occurrences() -> None:
    assert list(learn_weights(["dog dog dog", "cat", "cat"], min_texts=2).places) == ["cat"]
    with pytest.raises(DataError, match="no word stands in 3 of the 1"):
        learn_weights(["dog dog dog"])


def test_the_closed_form_solves_the_normal_equations_with_an_intercept() -> None:
    generator = np.random.default_rng(0)
    features, targets = generator.normal(2.0, 1.0, (30, 4)), generator.normal(-1.0, 1.0, (30, 3))
    alpha = 7.0
    # The brute force: a column of ones for the intercept, which alone is not penalised.
    wide = np.hstack([features, np.ones((30, 1))])
    penalty = alpha * np.diag([1.0, 1.0, 1.0, 1.0, 0.0])
    expected = np.linalg.inv(wide.T @ wide + penalty) @ wide.T @ targets
    fitted = fit_ridge(features, targets, alpha=alpha)
    assert fitted.weights == pytest.approx(expected[:4])
    fresh = generator.normal(size=(5, 4))
    assert fitted.predict(fresh) == pytest.approx(np.hstack([fresh, np.ones((5, 1))]) @ expected)


def test_the_closed_form_is_the_minimum() -> None:
    generator = np.random.default_rng(1)
    features, targets = generator.normal(size=(20, 3)), generator.normal(size=(20, 2))
    fitted = fit_ridge(features, targets, alpha=2.0)

    def cost(weights: np.ndarray) -> float:
        left = (features - features.mean(0)) @ weights - (targets - targets.mean(0))
        return float((left**2).sum() + 2.0 * (weights**2).sum())

    best = cost(fitted.weights)
    steps = generator.normal(scale=1e-3, size=(50, *fitted.weights.shape))
    assert all(cost(fitted.weights + step) > best for step in steps)


def test_features_that_name_the_words_are_read_exactly() -> None:
    words = ["dog", "cat", "car", "ball"]
    captions = [[f"{word} {word}", f"one {word}"] for word in words for _ in range(5)]
    features = np.repeat(np.eye(4), 5, axis=0)
    fitted = fit_caption_ridge(features, captions, alpha=1e-6)
    likeness = fitted.picture_vectors(np.eye(4)) @ fitted.caption_vectors(words).T
    assert likeness.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert np.linalg.norm(fitted.picture_vectors(np.eye(4)), axis=1) == pytest.approx(np.ones(4))


@pytest.mark.parametrize(
    ("features", "targets", "alpha", "error", "match"),
    [
        (np.ones((2, 1)), np.ones((3, 1)), 1.0, DataError, "2 rows of features and 3 of targets"),
        (np.ones((0, 1)), np.ones((0, 1)), 1.0, DataError, "at least one"),
        (np.array([[np.nan]]), np.ones((1, 1)), 1.0, DataError, "not finite"),
        (np.ones((2, 1)), np.ones((2, 1)), 0.0, UsageError, "above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    features: np.ndarray, targets: np.ndarray, alpha: float, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        fit_ridge(features, targets, alpha=alpha)


def test_a_photo_without_captions_is_refused() -> None:
    with pytest.raises(DataError, match="one list of one or more each"):
        fit_caption_ridge(np.ones((2, 1)), [["dog"], []])
