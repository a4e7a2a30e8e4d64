"""Answer scores against numbers worked out by hand."""

import json

import numpy as np
import pytest

from isthmus.core.errors import DataError
from isthmus.evaluation.statistics import wilson
from isthmus.evaluation.vqa import (
    AnswerRule,
    accuracy,
    exact_match,
    says_yes,
    vqa_soft_accuracy,
    yes_no_scores,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_exact_match_follows_its_rule() -> None:
    given = [" Red. ", "the  red ball", "red", "", "A", "dark red"]
    truth = ["red", "a red ball", "blue", "red", "a", "red"]
    assert exact_match(given, truth).tolist() == [True, True, False, False, True, False]
    strict = AnswerRule(drop_articles=False, drop_final_punctuation=False)
    assert exact_match(given, truth, strict).tolist() == [False, False, False, False, True, False]
    assert strict.normalise(" The\tRed. ") == "the red."


def test_accuracy_is_reported_by_kind() -> None:
    found = accuracy([True, True, False, True], ["colour", "count", "count", "colour"], generator=rng())
    assert found.overall == wilson(3, 4)
    assert list(found.kinds) == ["colour", "count"]
    assert (found.kinds["colour"], found.kinds["count"]) == (wilson(2, 2), wilson(1, 2))
    assert json.loads(json.dumps(found.to_json()))["kinds"]["count"]["value"] == 0.5
    shared = accuracy([True, True, False, False], ["a"] * 4, generator=rng(), pictures=["p", "p", "q", "q"])
    assert (shared.overall.low, shared.overall.high) == (0.0, 1.0)


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_soft_accuracy_averages_over_nine_of_ten_answers(matches: int, expected: float) -> None:
    answers = ["red"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert vqa_soft_accuracy(["Red"], [answers]).tolist() == pytest.approx([expected])


def test_soft_accuracy_cleans_as_the_official_evaluation_does() -> None:
    cases = {
        "Two.": "2", "the dog": "dog", "black,white": "black white", "black, white": "black white",
        "1,000": "1000", "3.5": "3.5", "t-shirt": "t-shirt", "None": "0", "yes\n": "yes",
    }  # fmt: skip
    for prediction, answer in cases.items():
        assert vqa_soft_accuracy([prediction], [[answer] * 10]).tolist() == [1.0], prediction
    # Answers lose punctuation only where people disagree.
    assert vqa_soft_accuracy(["black/white"], [["black/white"] * 9 + ["both"]]).tolist() == [1.0]
    assert vqa_soft_accuracy(["black/white"], [["black/white"] * 10]).tolist() == [0.0]


def test_yes_or_no_is_read_as_pope_reads_it() -> None:
    assert says_yes("Yes, there is a dog.")
    assert says_yes("There is. No doubt.")
    assert not says_yes("No.")
    assert not says_yes("There is not a dog")
    assert not says_yes("no, sorry")
    assert says_yes("nothing")


def test_yes_no_scores_by_hand() -> None:
    said = [True] * 6 + [False] * 4
    true = [True] * 4 + [False] * 2 + [True] * 1 + [False] * 3
    found = yes_no_scores(said, true, generator=rng())
    # 4 true positives, 2 false ones, 1 miss, 3 true negatives.
    assert (found.accuracy.value, found.yes_share.value) == (0.7, 0.6)
    assert (found.precision.value, found.recall.value) == pytest.approx((4 / 6, 4 / 5))
    assert found.f1.value == pytest.approx(8 / 11)
    assert found.f1.low < 8 / 11 < found.f1.high
    never = yes_no_scores([False] * 4, [True, False, True, False], generator=rng())
    assert (never.precision.value, never.recall.value, never.f1.value, never.accuracy.value) == (0, 0, 0, 0.5)
    assert set(json.loads(json.dumps(never.to_json()))) == {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "yes_share",
    }


def test_bad_rows_are_refused() -> None:
    with pytest.raises(DataError, match="1 predictions came with 2 answers"):
        exact_match(["a"], ["a", "b"])
    with pytest.raises(DataError, match="row 0 has the answer"):
        exact_match(["a"], ["?"])
    with pytest.raises(DataError, match="1 kinds of question came with 2 rows"):
        accuracy([True, False], ["a"], generator=rng())
    with pytest.raises(DataError, match="row 0 has 1 human answers"):
        vqa_soft_accuracy(["a"], [["a"]])
    with pytest.raises(DataError, match="0 answers came with 0 truths"):
        yes_no_scores([], [], generator=rng())
