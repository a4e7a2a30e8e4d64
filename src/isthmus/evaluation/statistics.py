"""Intervals and paired tests over rows (Efron and Tibshirani, 1993; Wilson, 1927; McNemar, 1947).

Every function that draws takes its generator, so the same seed gives the same interval. `clusters` names the
photo (or any other unit) a row belongs to: rows of one photo are not independent, so they are drawn together.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.resampling import Rows, Values, group, resampled_means, resampled_rows, row_numbers

LEVEL = 0.95
RESAMPLES = 10_000
METRIC_RESAMPLES = 1_000

Metric = Callable[[Rows], float]


@final
@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95% interval over `n` rows."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """Return the numbers as a plain dictionary."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@final
@dataclass(frozen=True)
class Difference:
    """First minus second on the same `n` rows, with its 95% interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """Return the numbers as a plain dictionary."""
        return {"value": self.value, "low": self.low, "high": self.high, "p": self.p, "n": self.n}


@final
@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of one number over `n` repeats, for example seeds."""

    mean: float
    deviation: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """Return the numbers as a plain dictionary."""
        return {"mean": self.mean, "deviation": self.deviation, "n": self.n}


def bootstrap_mean(
    values: Values,
    *,
    generator: np.random.Generator,
    method: Literal["bca", "percentile"] = "bca",
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate the mean with a bootstrap interval.

    Args:
        values: One number a row.
        generator: Source of the draws.
        method: `bca` corrects for bias and skew with the jackknife (Efron, 1987); `percentile` does not.
        clusters: What each row belongs to; rows that belong together are drawn together.
        resamples: How many times the rows are drawn again.

    Raises:
        DataError: There is no row, a value is not finite, or `clusters` has another length.
    """
    numbers = row_numbers(values)
    sums, sizes = group(numbers, clusters)
    mean = float(numbers.mean())
    if np.ptp(numbers) == 0:
        return Estimate(float(numbers[0]), float(numbers[0]), float(numbers[0]), len(numbers))
    means = resampled_means(sums, sizes, generator, resamples)
    shares = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    if method == "bca" and len(sums) > 1:
        shares = _bca_shares(mean, means, (sums.sum() - sums) / (sizes.sum() - sizes))
    low, high = np.quantile(means, shares)
    return Estimate(mean, float(low), float(high), len(numbers))


def wilson(successes: int, n: int) -> Estimate:
    """Estimate a proportion with Wilson's score interval, which keeps its width at 0% and at 100%.

    Raises:
        DataError: There is no row.
        UsageError: `successes` is negative or above `n`.
    """
    if n < 1:
        raise DataError("a proportion needs at least one row, found 0; check that the data set is not empty")
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes in {n} rows cannot be; expected a number from 0 to {n}")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(share, low, high, n)


def proportion(
    right: Values, *, generator: np.random.Generator, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Estimate the share of right rows: Wilson's interval, or the cluster bootstrap if rows share pictures.

    If all rows agree a bootstrap has no width; then Wilson's interval over the clusters is given.

    Raises:
        DataError: There is no row, a value is neither 0 nor 1, or `clusters` has another length.
    """
    numbers = row_numbers(right)
    if not np.isin(numbers, (0.0, 1.0)).all():
        raise DataError(
            "a proportion is made of rows that are right or wrong, found a value other than 0 and 1"
        )
    sums, _ = group(numbers, clusters)
    if len(sums) == len(numbers):
        return wilson(int(numbers.sum()), len(numbers))
    if np.ptp(numbers) == 0:
        exact = wilson(len(sums) * int(numbers[0]), len(sums))
        return Estimate(exact.value, exact.low, exact.high, len(numbers))
    return bootstrap_mean(numbers, generator=generator, clusters=clusters)


def paired_difference(
    first: Values,
    second: Values,
    *,
    generator: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare the means of two measurements of the same rows: percentile interval, two-sided p-value.

    The p-value is twice the smaller share of resamples on one side of zero, one added to count and total so
    that it is never 0; it is below 0.05 where the interval leaves out zero (up to that added one).

    Raises:
        DataError: There is no row, a value is not finite, or the lengths differ.
    """
    one, two = row_numbers(first), row_numbers(second)
    if len(one) != len(two):
        raise DataError(
            f"a paired test needs the same rows, found {len(one)} and {len(two)}; pair them by row first"
        )
    gaps = one - two
    sums, sizes = group(gaps, clusters)
    means = resampled_means(sums, sizes, generator, resamples)
    return _difference(float(gaps.mean()), means, len(gaps))


def bootstrap_metric(
    metric: Metric,
    n: int,
    *,
    generator: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = METRIC_RESAMPLES,
) -> Estimate:
    """Estimate a corpus metric, such as BLEU or the median rank, with a percentile interval.

    Args:
        metric: Gives the metric of the rows whose numbers it gets; a row may come several times.
        n: How many rows there are.
        generator: Source of the draws.
        clusters: What each row belongs to.
        resamples: How many times the rows are drawn again.

    Raises:
        DataError: There is no row, or `clusters` has another length.
    """
    draws = [metric(rows) for rows in resampled_rows(n, clusters, generator, resamples)]
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(metric(np.arange(n))), float(low), float(high), n)


def paired_metric_difference(
    first: Metric,
    second: Metric,
    n: int,
    *,
    generator: np.random.Generator,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = METRIC_RESAMPLES,
) -> Difference:
    """Compare two systems by a corpus metric, on the same rows in every resample (Koehn, 2004).

    Raises:
        DataError: There is no row, or `clusters` has another length.
    """
    drawn = resampled_rows(n, clusters, generator, resamples)
    draws = np.array([first(rows) - second(rows) for rows in drawn])
    everything = np.arange(n)
    return _difference(float(first(everything) - second(everything)), draws, n)


def mcnemar(first: Values, second: Values) -> float:
    """Return the exact two-sided p-value that two systems are right equally often on the same rows.

    Only rows where exactly one of them is right count: under the null each is a fair coin.

    Raises:
        DataError: There is no row or the lengths differ.
    """
    one, two = row_numbers(first) > 0, row_numbers(second) > 0
    if len(one) != len(two):
        raise DataError(
            f"a paired test needs the same rows, found {len(one)} and {len(two)}; pair them by row first"
        )
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    coins, fewer = only_first + only_second, min(only_first, only_second)
    # Whole numbers to the end: 2 ** -coins underflows from about a thousand rows on.
    ways = tail = 1
    for heads in range(1, fewer + 1):
        ways = ways * (coins - heads + 1) // heads
        tail += ways
    return min(1.0, 2 * tail / 2**coins)


def spread(values: Values) -> Spread:
    """Return the mean and sample standard deviation over repeats; one repeat has no deviation and gives 0.

    Raises:
        DataError: There is no value or one is not finite.
    """
    numbers = row_numbers(values)
    deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return Spread(float(numbers.mean()), deviation, len(numbers))


def _bca_shares(
    mean: float, means: Float[np.ndarray, " resample"], jackknife: Float[np.ndarray, " cluster"]
) -> tuple[float, float]:
    normal = NormalDist()
    # A mean of few distinct values ties often: half of the ties count as below. The clip keeps the quantile
    # finite.
    below = float((means < mean).mean() + (means == mean).mean() / 2)
    bias = normal.inv_cdf(min(max(below, 1 / (len(means) + 1)), 1 - 1 / (len(means) + 1)))
    lean = jackknife.mean() - jackknife
    scale = float((lean**2).sum()) ** 1.5
    acceleration = float((lean**3).sum()) / (6 * scale) if scale > 0 else 0.0

    def share(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return share((1 - LEVEL) / 2), share((1 + LEVEL) / 2)


def _difference(value: float, draws: Float[np.ndarray, " resample"], n: int) -> Difference:
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    smaller = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return Difference(value, float(low), float(high), min(1.0, 2 * (1 + smaller) / (len(draws) + 1)), n)
