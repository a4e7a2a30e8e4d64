"""Intervals and tests against closed forms, exhaustive enumeration and simulated coverage."""

import itertools
import json
import math
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_metric,
    mcnemar,
    paired_difference,
    paired_metric_difference,
    proportion,
    spread,
    wilson,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_wilson_equals_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)
    ]:  # fmt: skip
        found = wilson(successes, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 400), st.data())
def test_wilson_bounds_solve_the_score_equation_and_mirror(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    found, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert found.low <= found.value <= found.high
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    for bound in (found.low, found.high):
        if 0 < bound < 1:
            z = (found.value - bound) / math.sqrt(bound * (1 - bound) / n)
            assert abs(z) == pytest.approx(1.959964, abs=1e-5)


def test_percentile_interval_equals_the_full_enumeration_of_resamples() -> None:
    values = [0.0, 1.0, 4.0, 9.0]
    every = [np.mean(drawn) for drawn in itertools.product(values, repeat=4)]
    found = bootstrap_mean(values, generator=rng(), method="percentile", resamples=200_000)
    assert found.value == 3.5
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))), abs=0.01)


def test_intervals_of_many_normal_rows_are_those_of_the_normal_distribution() -> None:
    values = rng(3).normal(10, 2, 2_000)
    half = 1.96 * values.std() / math.sqrt(2_000)
    for method in ("percentile", "bca"):
        found = bootstrap_mean(values, generator=rng(), method=method)
        assert (found.low, found.high) == pytest.approx(
            (values.mean() - half, values.mean() + half), abs=0.005
        )


def test_bca_leans_to_the_long_tail_and_covers_better_than_the_percentile_interval() -> None:
    covered: dict[Literal["percentile", "bca"], int] = {"percentile": 0, "bca": 0}
    for seed in range(300):
        values = rng(seed).exponential(1.0, 30)
        for method in covered:
            found = bootstrap_mean(values, generator=rng(seed), method=method, resamples=1_000)
            covered[method] += found.low <= 1.0 <= found.high
    assert covered["bca"] >= covered["percentile"]
    assert 0.88 < covered["bca"] / 300 <= 1.0


def test_the_same_generator_seed_gives_the_same_interval() -> None:
    values = rng(1).normal(size=50)
    assert bootstrap_mean(values, generator=rng(7)) == bootstrap_mean(values, generator=rng(7))
    assert bootstrap_mean(values, generator=rng(7)) != bootstrap_mean(values, generator=rng(8))


def test_rows_of_one_photo_are_drawn_together() -> None:
    photos = rng(2).normal(size=200)
    repeated, names = np.repeat(photos, 5), [f"photo {n}" for n in range(200) for _ in range(5)]
    clustered = bootstrap_mean(repeated, generator=rng(), clusters=names, method="percentile")
    alone = bootstrap_mean(photos, generator=rng(), method="percentile")
    naive = bootstrap_mean(repeated, generator=rng(), method="percentile")
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high))
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(
        math.sqrt(5), rel=0.05
    )
    assert clustered.n == 1_000


def test_clusters_of_unequal_size_equal_their_enumeration() -> None:
    values, names = [0.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]
    drawn = bootstrap_metric(
        lambda rows: float(np.array(values)[rows].mean()), 4, generator=rng(), clusters=names
    )
    # Resamples: aa (mean 2/3), bb (5), ab and ba (7/4); a quarter each puts the quantiles at the ends.
    assert (drawn.value, drawn.low, drawn.high) == pytest.approx((1.75, 2 / 3, 5.0))
    mean = bootstrap_mean(values, generator=rng(), clusters=names, method="percentile")
    assert (mean.low, mean.high) == pytest.approx((2 / 3, 5.0))


def test_proportions_use_wilson_and_widen_with_shared_pictures() -> None:
    right = [True] * 30 + [False] * 10
    assert proportion(right, generator=rng()) == wilson(30, 40)
    shared = proportion(right, generator=rng(), clusters=[row // 5 for row in range(40)])
    assert shared.high - shared.low > wilson(30, 40).high - wilson(30, 40).low
    perfect = proportion([True] * 40, generator=rng(), clusters=[row // 5 for row in range(40)])
    assert (perfect.value, perfect.low, perfect.n) == (1.0, wilson(8, 8).low, 40)


def test_a_paired_difference_is_tighter_than_its_parts_and_finds_a_small_gain() -> None:
    hard = rng(4).normal(size=400)
    first, second = hard + 0.1 + rng(5).normal(0, 0.2, 400), hard
    found = paired_difference(first, second, generator=rng())
    assert found.low > 0
    assert found.p < 0.001
    assert found.n == 400
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    turned = paired_difference(second, first, generator=rng())
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_equal_systems_have_no_difference() -> None:
    found = paired_difference([1, 0, 1], [1, 0, 1], generator=rng())
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_p_values_are_small_as_often_as_they_say_under_the_null() -> None:
    small = sum(
        paired_difference(rng(seed).normal(size=60), np.zeros(60), generator=rng(seed), resamples=1_000).p
        < 0.05
        for seed in range(400)
    )
    assert 0.02 < small / 400 < 0.10


def test_metric_differences_use_the_same_rows_for_both_systems() -> None:
    values = rng(6).normal(size=100)
    found = paired_metric_difference(
        lambda rows: float(values[rows].mean()) + 1,
        lambda rows: float(values[rows].mean()),
        100,
        generator=rng(),
    )
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    mean = bootstrap_metric(lambda rows: float(values[rows].mean()), 100, generator=rng(), resamples=4_000)
    plain = bootstrap_mean(values, generator=rng(), method="percentile")
    assert (mean.low, mean.high) == pytest.approx((plain.low, plain.high), abs=0.02)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_mcnemar_equals_counting_coin_tosses(rows: list[tuple[bool, bool]]) -> None:
    first, second = zip(*rows, strict=True)
    gains, losses = sum(a and not b for a, b in rows), sum(b and not a for a, b in rows)
    tosses = list(itertools.product((0, 1), repeat=gains + losses))
    as_far = sum(abs(2 * sum(toss) - len(toss)) >= abs(gains - losses) for toss in tosses)
    assert mcnemar(first, second) == pytest.approx(float(Fraction(as_far, len(tosses))))


def test_mcnemar_stays_exact_over_thousands_of_rows() -> None:
    first, second = [1] * 2_600 + [0] * 2_400, [0] * 2_600 + [1] * 2_400
    z = (2_600 - 2_400 - 1) / math.sqrt(5_000)
    assert mcnemar(first, second) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def test_spread_is_mean_and_sample_deviation() -> None:
    found = spread([1.0, 2.0, 4.0])
    assert (found.mean, found.deviation, found.n) == pytest.approx((7 / 3, math.sqrt(7 / 3), 3))
    assert spread([3.0]).deviation == 0


def test_results_are_plain_json() -> None:
    found = [
        bootstrap_mean([1, 2], generator=rng()),
        paired_difference([1, 2], [0, 0], generator=rng()),
        spread([1]),
    ]
    assert [set(json.loads(json.dumps(one.to_json()))) for one in found] == [
        {"value", "low", "high", "n"}, {"value", "low", "high", "p", "n"}, {"mean", "deviation", "n"}
    ]  # fmt: skip


def test_bad_rows_are_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        bootstrap_mean([], generator=rng())
    with pytest.raises(DataError, match="row 1 has the value nan"):
        bootstrap_mean([1.0, math.nan], generator=rng())
    with pytest.raises(DataError, match="same rows, found 2 and 1"):
        paired_difference([1, 2], [1], generator=rng())
    with pytest.raises(DataError, match="1 cluster names came with 2 rows"):
        bootstrap_mean([1, 2], generator=rng(), clusters=["a"])
    with pytest.raises(DataError, match="other than 0 and 1"):
        proportion([0.5, 1.0], generator=rng())
    with pytest.raises(DataError, match="at least one row"):
        wilson(0, 0)
    with pytest.raises(UsageError, match="3 successes in 2 rows"):
        wilson(3, 2)
