"""The verdict's rule on answers made to look, to guess, and to be unclear."""

import json

import numpy as np
import pytest

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.statistics import wilson
from isthmus.evaluation.verdict import judge, judge_kinds


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def first(share: float, n: int = 100) -> list[bool]:
    """Return `n` rows of which the first `share` are right."""
    return [row < round(share * n) for row in range(n)]


def test_a_model_that_looks_gets_the_line_and_the_json() -> None:
    found = judge({"real": first(0.93), "blank": first(0.31), "shuffled": first(0.29)}, generator=rng())
    assert found.line == (
        "answers right: 93% with the picture, 31% with a blank one, 29% with another row's picture: "
        "it looks at the picture"
    )
    assert (found.conclusion, found.best_control) == ("looks at the picture", "blank")
    assert found.margin.value == pytest.approx(0.62)
    assert found.margin.low > 0.5
    numbers = json.loads(json.dumps(found.to_json()))
    share = wilson(93, 100)
    assert numbers["answers"]["real"] == {"accuracy": 0.93, "interval": [share.low, share.high], "n": 100}
    assert list(numbers["answers"]) == ["real", "blank", "shuffled"]
    assert numbers["verdict"] == found.line
    assert numbers["conclusion"] == "looks at the picture"
    assert found.detail[0] == "with the picture: 93% (95% interval 86% to 97%, 100 rows)"
    assert found.detail[-1].startswith("picture minus best control (blank): +62 points (95% interval +5")


def test_the_strongest_control_decides() -> None:
    right = {"wrong": first(0.9), "blank": first(0.3), "shuffled": first(0.2), "real": first(0.92)}
    found = judge(right, generator=rng())
    assert found.best_control == "wrong"
    assert found.conclusion != "looks at the picture"
    assert "90% with the most similar other one" in found.line


def test_a_model_that_answers_without_looking_guesses() -> None:
    same = first(0.4, 200)
    found = judge({"real": same, "blank": same, "shuffled": same, "wrong": same}, generator=rng())
    assert found.conclusion == "guesses"
    assert found.line.endswith(": it guesses")
    assert (found.margin.low, found.margin.high, found.margin.p) == (0, 0, 1)


def test_independent_guesses_are_never_called_looking_more_often_than_stated() -> None:
    looking = 0
    for seed in range(100):
        draws = rng(seed).random((4, 150)) < 0.4
        right = dict(zip(("real", "blank", "shuffled", "wrong"), draws, strict=True))
        looking += judge(right, generator=rng(seed)).conclusion == "looks at the picture"
    assert looking / 100 <= 0.025


def test_a_sure_but_tiny_gain_is_guessing_and_an_unclear_one_is_not_sure() -> None:
    tiny = judge({"real": first(0.51, 4_000), "blank": first(0.50, 4_000)}, generator=rng())
    assert tiny.margin.low > 0
    assert tiny.conclusion == "guesses"
    wide = judge({"real": first(0.6, 40), "blank": first(0.4, 40)[::-1]}, generator=rng())
    assert wide.conclusion == "not sure"
    assert "not sure" in wide.line


def test_few_pictures_are_never_sure() -> None:
    assert judge({"real": [True] * 29, "blank": [False] * 29}, generator=rng()).conclusion == "not sure"
    many_rows = {"real": [True] * 290, "blank": [False] * 290}
    pictures = [row // 10 for row in range(290)]
    assert judge(many_rows, generator=rng(), pictures=pictures).conclusion == "not sure"
    assert (
        judge({"real": [True] * 30, "blank": [False] * 30}, generator=rng()).conclusion
        == "looks at the picture"
    )


def test_kinds_of_question_are_judged_apart() -> None:
    right = {"real": first(1.0, 100), "blank": [row >= 50 for row in range(100)]}
    found = judge_kinds(right, ["colour"] * 50 + ["yes or no"] * 50, generator=rng())
    assert {kind: one.conclusion for kind, one in found.items()} == {
        "colour": "looks at the picture", "yes or no": "guesses"
    }  # fmt: skip
    assert found["colour"].answers["real"].n == 50


def test_missing_or_unequal_answers_are_refused() -> None:
    for right in ({"real": [True]}, {"blank": [True]}, {"real": [True], "blank": [True], "black": [True]}):
        with pytest.raises(UsageError, match="a verdict needs real"):
            judge(right, generator=rng())
    with pytest.raises(DataError, match="other rows"):
        judge({"real": [True], "blank": [True, False]}, generator=rng())
    with pytest.raises(DataError, match="2 kinds of question came with 1 real rows"):
        judge_kinds({"real": [True], "blank": [True]}, ["a", "b"], generator=rng())
