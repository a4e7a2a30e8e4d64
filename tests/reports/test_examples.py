"""Which rows are shown, and that content refuses what would stand under the wrong heading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.reports.content import (
    Controls,
    Estimate,
    KindRow,
    MetricRow,
    MetricTable,
    standard_control,
)
from isthmus.reports.examples import choose_rows


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 20), st.integers(0, 20))
def test_chosen_rows_hold_the_mistakes_asked_for(right: list[bool], count: int, min_mistakes: int) -> None:
    min_mistakes = min(min_mistakes, count)
    rows = choose_rows(right, count, min_mistakes)
    assert list(rows) == sorted(set(rows))
    assert len(rows) == min(count, len(right))
    assert sum(not right[row] for row in rows) >= min(min_mistakes, right.count(False))


def test_rows_are_spread_evenly() -> None:
    assert choose_rows([True] * 40, 4, 2) == (5, 15, 25, 35)
    assert set(choose_rows([True] * 39 + [False], 4, 1)) > {39}


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="min_mistakes <= count"):
        choose_rows([True], 2, 3)


def test_controls_and_metrics_need_an_estimate_for_each_column() -> None:
    one = Estimate(value=0.5)
    with pytest.raises(ValueError, match="kind 'colour' has 2 estimates, expected 1"):
        Controls(
            controls=(standard_control("real", one),), kinds=(KindRow(kind="colour", estimates=(one, None)),)
        )
    with pytest.raises(ValueError, match="metric 'R@1' has 1 estimates, expected 2"):
        MetricTable(title="t", columns=("a", "b"), rows=(MetricRow(name="R@1", estimates=(one,)),))


def test_an_unknown_standard_control_is_refused() -> None:
    with pytest.raises(ValueError, match="no control is called 'fake'; expected one of real, blank"):
        standard_control("fake", Estimate(value=0.1))
