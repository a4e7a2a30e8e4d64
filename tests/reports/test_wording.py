"""How numbers are written."""

import math

import pytest

from isthmus.reports import wording


@pytest.mark.parametrize(
    ("fraction", "decimals", "text"),
    [
        (0.931, 0, "93%"),
        (0.1337, 1, "13.4%"),
        (0, 0, "0%"),
        (1, 0, "100%"),
        (0.9996, 0, ">99%"),
        (0.9996, 1, ">99.9%"),
        (0.0004, 0, "<1%"),
        (0.00004, 1, "<0.1%"),
        (-0.0001, 0, "0%"),
        (math.nan, 0, "–"),
    ],
)
def test_percentages_never_round_to_a_false_nothing_or_everything(
    fraction: float, decimals: int, text: str
) -> None:
    assert wording.percent(fraction, decimals) == text


def test_intervals_and_differences() -> None:
    assert wording.interval(0.914, 0.951, "percent") == "91–95%"
    assert wording.interval(0.4123, 0.467, "number") == "0.412–0.467"
    assert wording.interval(math.nan, 0.4, "number") == "–"
    assert wording.difference(0.553, "percent") == "+55"
    assert wording.difference(-0.02, "percent") == "−2"
    assert wording.difference(0.371, "number") == "+0.371"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (252, "4 min 12 s"),
        (3599.9, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_sizes_and_counts() -> None:
    assert wording.memory(1_430_000_000) == "1.43 GB"
    assert wording.memory(900) == "900 bytes"
    assert wording.count(1_234_567) == "1,234,567"
    assert wording.number(0.4618) == "0.462"
    assert wording.number(2e-5) == "2.00e-05"
