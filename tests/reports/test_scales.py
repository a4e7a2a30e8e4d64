"""Scales, ticks and thinning against hand-computed values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.reports.scales import (
    Point,
    Scale,
    domain,
    linear_ticks,
    log_ticks,
    moving_mean,
    nice_step,
    thin,
    tick_text,
    widen,
)


def test_a_linear_scale_maps_ends_and_middle() -> None:
    scale = Scale(low=10, high=20, start=100, end=0)
    assert (scale(10), scale(15), scale(20)) == (100, 50, 0)


def test_a_logarithmic_scale_gives_equal_ratios_equal_lengths() -> None:
    scale = Scale(low=0.01, high=100, start=0, end=40, log=True)
    assert [round(scale(value), 9) for value in (0.01, 0.1, 1, 10, 100)] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("low", "high", "log"), [(1, 1, False), (2, 1, False), (0, 1, True), (math.nan, 1, False)]
)
def test_a_scale_refuses_what_is_no_interval(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="scale needs"):
        Scale(low=low, high=high, start=0, end=1, log=log)


@pytest.mark.parametrize(
    ("values", "log", "expected"),
    [
        ([3, math.nan, 1, math.inf], False, (1, 3)),
        ([], False, (0, 1)),
        ([math.nan], True, (0.1, 1)),
        ([4], False, (2, 6)),
        ([0, 0], False, (-1, 1)),
        ([-1, 0, 8, 2], True, (2, 8)),
        ([4, 4], True, (2, 8)),
    ],
)
def test_the_domain_is_never_empty(values: list[float], log: bool, expected: Point) -> None:
    assert domain(values, log) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (0.03, 0.31, (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
        (-1, 1, (-1, -0.5, 0, 0.5, 1)),
        (1, 2000, (500, 1000, 1500, 2000)),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert linear_ticks(low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 10, (0.01, 0.1, 1, 10)),
        (0.2, 5, (0.2, 0.5, 1, 2, 5)),
        (1.1, 1.4, (1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4)),
        (1e-9, 1e3, (1e-9, 1e-6, 1e-3, 1, 1e3)),
    ],
)
def test_logarithmic_ticks_are_powers_of_ten(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_there_are_always_a_few_ticks_inside_the_axis(low: float, span: float) -> None:
    ticks = linear_ticks(low, low + span)
    assert 2 <= len(ticks) <= 9
    room = 1e-6 * max(span, abs(low))
    assert all(low - room <= tick <= low + span + room for tick in ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.02, 1e9))
def test_there_are_always_a_few_logarithmic_ticks(low: float, ratio: float) -> None:
    assert 2 <= len(log_ticks(low, low * ratio)) <= 12


def test_widening_reaches_the_nearest_ticks() -> None:
    assert widen(0.03, 0.97) == pytest.approx((0, 1))
    assert nice_step(7, 5) == 1
    with pytest.raises(ValueError, match="positive span"):
        nice_step(0, 5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1500, "1,500"),
        (20_000, "20k"),
        (3e6, "3M"),
        (2e-5, "2e-05"),
        (-0.5, "-0.5"),
    ],
)
def test_ticks_are_written_briefly(value: float, text: str) -> None:
    assert tick_text(value) == text


def test_thinning_keeps_ends_extremes_and_gaps() -> None:
    points = [(float(x), math.sin(x / 400)) for x in range(10_000)]
    points[5_003] = (5_003.0, 9.0)
    points[7_001] = (7_001.0, math.nan)
    kept = thin(points, 300)
    assert len(kept) <= 305
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert (5_003.0, 9.0) in kept
    assert sum(math.isnan(y) for _, y in kept) == 1
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_thinning_stays_small_even_when_every_other_value_is_missing() -> None:
    points = [(float(x), math.nan if x % 2 else 1.0) for x in range(10_000)]
    assert len(thin(points, 300)) <= 310


def test_few_points_are_not_thinned() -> None:
    assert thin([(1, 2)], 300) == ((1, 2),)


def test_the_moving_mean_leaves_out_what_is_missing() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 6.0)]
    assert [y for _, y in moving_mean(points, 3)] == [1.5, 1.5, 4.0, 6.0]
    assert math.isnan(moving_mean([(0, math.nan)], 3)[0][1])
