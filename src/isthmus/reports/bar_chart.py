"""Horizontal bars with intervals; colours come from the classes `bar`, `strong`, `fill` of `style.css`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final
from xml.etree import ElementTree

from markupsafe import Markup

from isthmus.reports.scales import Scale, linear_ticks, tick_text
from isthmus.reports.svg import add, drawing, markup


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A horizontal bar: its value and interval in the chart's units, and the texts that stand beside it."""

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None
    detail: str = ""
    strong: bool = False


def bar_chart(
    bars: Sequence[Bar], *, title: str, limit: float, format_tick: Callable[[float], str] = tick_text
) -> Markup:
    """Draw horizontal bars from 0 to `limit`, each under its label, with its interval as a whisker.

    Args:
        bars: From top to bottom; a value that is not finite shows its text and no bar.
        title: What the bars show, for screen readers.
        limit: Right end of the axis, above zero; longer bars are cut there.
        format_tick: How the values of the axis are written.
    """
    width, row, top = 420.0, 44.0, 4.0
    bottom = top + row * len(bars)
    said = "; ".join(f"{bar.label} {bar.text} {bar.detail}".strip() for bar in bars)
    root = drawing(width, bottom + 24, f"{title}: {said or 'no data'}")
    scale = Scale(low=0, high=limit, start=1, end=width - 1)
    for tick in linear_ticks(0, limit, 4):
        x = scale(tick)
        anchor = "start" if tick == 0 else "end" if x > width - 12 else "middle"
        add(
            root,
            "text",
            {"class": "tick", "x": x, "y": bottom + 18, "text-anchor": anchor},
            format_tick(tick),
        )
    for index, bar in enumerate(bars):
        _bar(root, bar, scale, top + row * index)
    return markup(root)


def _bar(root: ElementTree.Element, bar: Bar, scale: Scale, top: float) -> None:
    """Draw one bar: label and value on a line, the bar below them."""
    group = add(root, "g", {"class": "bar strong" if bar.strong else "bar"})
    add(group, "title", {}, f"{bar.label}: {bar.text} {bar.detail}".strip())
    add(group, "text", {"class": "name", "x": scale.start, "y": top + 15}, bar.label)
    add(group, "text", {"class": "value", "x": scale.end, "y": top + 15, "text-anchor": "end"}, bar.text)
    y, height = top + 21, 14.0
    add(
        group,
        "rect",
        {
            "class": "track",
            "x": scale.start,
            "y": y,
            "width": scale.end - scale.start,
            "height": height,
            "rx": 2,
        },
    )
    for tick in linear_ticks(0, scale.high, 4)[1:-1]:
        add(group, "line", {"class": "grid", "x1": scale(tick), "x2": scale(tick), "y1": y, "y2": y + height})
    if math.isfinite(bar.value):
        end = scale(min(max(bar.value, 0.0), scale.high))
        add(
            group,
            "rect",
            {
                "class": "fill",
                "x": scale.start,
                "y": y,
                "width": end - scale.start,
                "height": height,
                "rx": 2,
            },
        )
    if bar.interval is None or not all(map(math.isfinite, bar.interval)):
        return
    low, high = (scale(min(max(value, 0.0), scale.high)) for value in bar.interval)
    middle = y + height / 2
    caps = "".join(f"M{x:.1f} {middle - 4:.1f}V{middle + 4:.1f}" for x in (low, high))
    for name in ("whisker halo", "whisker"):
        add(group, "path", {"class": name, "d": f"M{low:.1f} {middle:.1f}H{high:.1f}{caps}"})
