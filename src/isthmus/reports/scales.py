"""From values to positions on a drawing: domains, linear and logarithmic scales, round ticks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

Point = tuple[float, float]
"""One (x, y) pair of a curve; y may be NaN or infinite where the run measured nothing usable."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """A monotone map from the values of an axis to positions on the drawing.

    Args:
        low: Value at `start`.
        high: Value at `end`; above `low`.
        start: Position of `low`, in drawing units.
        end: Position of `high`; below `start` for an axis that points up.
        log: Equal ratios take equal lengths; needs `low` above zero.

    Raises:
        ValueError: The values do not span an interval, or a logarithmic scale reaches zero.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty interval and the logarithm of zero."""
        if not self.low < self.high:
            raise ValueError(f"a scale needs low < high, but got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic scale needs values above zero, but starts at {self.low}")

    def __call__(self, value: float) -> float:
        """Return the position of one finite value; values outside [low, high] land outside the axis."""
        if self.log:
            fraction = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            fraction = (value - self.low) / (self.high - self.low)
        return self.start + fraction * (self.end - self.start)


def usable(value: float, log: bool = False) -> bool:
    """Say whether a value can be drawn: finite, and above zero where the axis is logarithmic."""
    return math.isfinite(value) and (not log or value > 0)


def domain(values: Iterable[float], log: bool = False) -> tuple[float, float]:
    """Return (low, high) around the values that can be drawn, never empty.

    A single value gets room on both sides; no value at all gives (0, 1), or (0.1, 1) for a logarithmic axis.
    """
    finite = [value for value in values if usable(value, log)]
    if not finite:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if log:
        return (low / 2, high * 2) if high < low * 1.001 else (low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) / 2 or 1.0
        return low - room, high + room
    return low, high


def nice_step(span: float, count: int) -> float:
    """Return the step of the form 1, 2 or 5 times a power of ten that cuts `span` into about `count` pieces.

    Raises:
        ValueError: The span is not a finite number above zero, or the count is not positive.
    """
    if not (math.isfinite(span) and span > 0 and count > 0):
        raise ValueError(f"ticks need a positive span and count, but got {span} and {count}")
    power = 10.0 ** math.floor(math.log10(span / count))
    ratio = span / count / power
    borders = ((math.sqrt(2), 1), (math.sqrt(10), 2), (math.sqrt(50), 5))
    return power * next((factor for border, factor in borders if ratio < border), 10)


def linear_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Return the multiples of a nice step inside [low, high]."""
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(0.0 if index == 0 else float(f"{index * step:.12g}") for index in range(first, last + 1))


def log_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Return round values inside [low, high]: powers of ten, with 2 and 5 times them where those are few.

    Falls back to linear ticks where the interval is too narrow to hold two such values.
    """
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    if len(powers) >= 3:
        return tuple(float(f"1e{power}") for power in powers[:: math.ceil(len(powers) / (count + 1))])
    around = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = (float(f"{factor}e{power}") for power in around for factor in (1, 2, 5))
    ticks = tuple(tick for tick in candidates if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9))
    if len(ticks) >= 2:
        return ticks
    return tuple(tick for tick in linear_ticks(low, high, count) if tick > 0)


def widen(low: float, high: float, count: int = 5) -> tuple[float, float]:
    """Return the interval stretched outwards to the nearest nice ticks."""
    step = nice_step(high - low, count)
    return step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)


def tick_text(value: float) -> str:
    """Write a tick briefly: 0.25, 1,500, 20k, 3M, 2e-05."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e9:
        return f"{value:.3g}"
    for unit, letter in ((1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e6 if letter == 'M' else 1e3):.4g}{letter}"
    return f"{value:,.6g}"


def thin(points: Sequence[Point], limit: int = 600) -> tuple[Point, ...]:
    """Return at most about `limit` points that look the same: each piece keeps its lowest and highest value.

    The first and the last point stay, and a piece that holds a value that is not finite keeps one such gap.
    """
    if len(points) <= limit:
        return tuple(points)
    size = math.ceil(len(points) / max(1, limit // 3))
    kept: list[Point] = []
    for begin in range(0, len(points), size):
        piece = points[begin : begin + size]
        finite = [index for index, (_, value) in enumerate(piece) if math.isfinite(value)]
        chosen = {index for index, (_, value) in enumerate(piece) if not math.isfinite(value)}
        chosen = {min(chosen)} if chosen else set()
        if finite:
            chosen |= {min(finite, key=lambda i: piece[i][1]), max(finite, key=lambda i: piece[i][1])}
        if begin == 0:
            chosen.add(0)
        if begin + size >= len(points):
            chosen.add(len(piece) - 1)
        kept.extend(piece[index] for index in sorted(chosen))
    return tuple(kept)


def moving_mean(points: Sequence[Point], window: int) -> tuple[Point, ...]:
    """Return each point's mean over the `window` points around it, without those that are not finite.

    The window is cut off at both ends of the curve; a window without a finite value gives NaN.
    """
    totals, counts = [0.0], [0]
    for _, value in points:
        finite = math.isfinite(value)
        totals.append(totals[-1] + (value if finite else 0.0))
        counts.append(counts[-1] + finite)
    means: list[Point] = []
    for index, (x, _) in enumerate(points):
        begin, end = max(0, index - window // 2), min(len(points), index + window // 2 + 1)
        count = counts[end] - counts[begin]
        means.append((x, (totals[end] - totals[begin]) / count if count else math.nan))
    return tuple(means)
