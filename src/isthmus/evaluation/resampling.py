"""Rows drawn with replacement, alone or with all rows of their photo (Efron and Tibshirani, 1993)."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from isthmus.core.errors import DataError

# Means are drawn in blocks of at most this many row numbers (16 MB), however many rows and resamples there
# are.
_BLOCK = 2_000_000

Values = Sequence[float] | Float[np.ndarray, " row"] | Int[np.ndarray, " row"] | Bool[np.ndarray, " row"]
Rows = Int[np.ndarray, " row"]


def row_numbers(values: Values) -> Float[np.ndarray, " row"]:
    """Return one finite float a row.

    Raises:
        DataError: There is no row, more than one axis, or a value that is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise DataError(
            f"statistics need one number a row, found shape {numbers.shape}; is the data set empty?"
        )
    if not np.isfinite(numbers).all():
        bad = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(
            f"row {bad} has the value {numbers[bad]}, expected a finite number; look at that row first"
        )
    return numbers


def group(
    numbers: Float[np.ndarray, " row"], clusters: Sequence[Hashable] | None
) -> tuple[Float[np.ndarray, " cluster"], Int[np.ndarray, " cluster"]]:
    """Return each cluster's sum and number of rows; without clusters each row is its own.

    Raises:
        DataError: There is no row, or `clusters` has another length.
    """
    members = _members(len(numbers), clusters)
    return np.bincount(members, weights=numbers), np.bincount(members)


def resampled_means(
    sums: Float[np.ndarray, " cluster"],
    sizes: Int[np.ndarray, " cluster"],
    generator: np.random.Generator,
    resamples: int,
) -> Float[np.ndarray, " resample"]:
    """Return the mean over rows of every resample, in which whole clusters are drawn with replacement."""
    count, alike = len(sums), int(sizes.max()) == int(sizes.min())
    means = np.empty(resamples)
    block = max(1, _BLOCK // count)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = generator.integers(0, count, size=(stop - start, count))
        means[start:stop] = sums[drawn].sum(axis=1) / (
            count * sizes[0] if alike else sizes[drawn].sum(axis=1)
        )
    return means


def resampled_rows(
    n: int, clusters: Sequence[Hashable] | None, generator: np.random.Generator, resamples: int
) -> Iterator[Rows]:
    """Yield the row numbers of every resample, in which whole clusters are drawn with replacement.

    Raises:
        DataError: There is no row, or `clusters` has another length.
    """
    members = _members(n, clusters)
    count = int(members.max()) + 1
    by_cluster = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    for _ in range(resamples):
        drawn = generator.integers(0, count, size=count)
        yield drawn if clusters is None else np.concatenate([by_cluster[cluster] for cluster in drawn])


def _members(n: int, clusters: Sequence[Hashable] | None) -> Rows:
    """Number the clusters in order of appearance and return each row's number."""
    if n < 1:
        raise DataError("statistics need at least one row, found 0; check that the data set is not empty")
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise DataError(f"{len(clusters)} cluster names came with {n} rows; each row needs one")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
