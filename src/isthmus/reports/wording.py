"""How numbers are written in reports: percentages without a false 0% or 100%, times, sizes, counts."""

import math
from typing import Literal

Measure = Literal["percent", "number"]
"""Whether a quantity is a fraction in [0, 1] shown in percent, or a plain number such as CIDEr."""

MISSING = "–"


def percent(fraction: float, decimals: int = 0) -> str:
    """Write a fraction in [0, 1] as a percentage; only exactly 0 and 1 show as 0% and 100%."""
    if not math.isfinite(fraction):
        return MISSING
    smallest = 10.0**-decimals
    text = f"{100 * fraction:.{decimals}f}"
    if float(text) <= 0 < fraction:
        return f"<{smallest:.{decimals}f}%"
    if float(text) >= 100 > 100 * fraction:
        return f">{100 - smallest:.{decimals}f}%"
    return f"{float(text) + 0.0:.{decimals}f}%"


def number(value: float) -> str:
    """Write a plain number with three decimals, or in scientific form where those would hide it."""
    if not math.isfinite(value):
        return MISSING
    if 0 < abs(value) < 0.001 or abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"


def amount(value: float, measure: Measure, decimals: int = 0) -> str:
    """Write a value in its own measure; `decimals` is for percentages."""
    return percent(value, decimals) if measure == "percent" else number(value)


def interval(low: float, high: float, measure: Measure, decimals: int = 0) -> str:
    """Write the two ends of an interval: `91–95%` or `0.412–0.467`."""
    first, last = amount(low, measure, decimals), amount(high, measure, decimals)
    return f"{first.removesuffix('%')}–{last}" if MISSING not in (first, last) else MISSING


def points(fraction: float) -> str:
    """Write a difference of two fractions in percentage points, with its sign."""
    return f"{100 * fraction:+.0f}".replace("-", "−") if math.isfinite(fraction) else MISSING


def difference(value: float, measure: Measure) -> str:
    """Write a difference with its sign: percentage points, or a plain number."""
    if measure == "percent":
        return points(value)
    return f"{value:+.3f}".replace("-", "−") if math.isfinite(value) else MISSING


def duration(seconds: float) -> str:
    """Write a time: `0.8 s`, `42 s`, `4 min 12 s`, `1 h 05 min`."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(num_bytes: float) -> str:
    """Write a size in decimal units: `512 kB`, `5.2 MB`, `1.43 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"


def count(value: int) -> str:
    """Write a whole number with separators: `1,234,567`."""
    return f"{value:,}"


def roughly(value: int) -> str:
    """Write a large count briefly: `830`, `42.1 thousand`, `3.42 million`, `7.06 billion`."""
    for unit, name in ((1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if value >= unit:
            return f"{value / (1e3 if name == 'thousand' else unit):.3g} {name}"
    return f"{value:,}"
