"""Line charts without JavaScript: labels at the lines' ends, values on hovering, gaps for missing ones.

Colours come from the page: `style.css` names the classes `series-0` to `series-5`, `grid`, `axis` and `tick`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final
from xml.etree import ElementTree

from markupsafe import Markup

from isthmus.reports.scales import (
    Point,
    Scale,
    domain,
    linear_ticks,
    log_ticks,
    moving_mean,
    thin,
    tick_text,
    usable,
    widen,
)
from isthmus.reports.svg import add, drawing, markup

NUM_COLOURS = 6
SMOOTH_FROM = 150
"""A curve of at least this many points is drawn pale, with its moving mean on top."""
CHARACTER_WIDTH = 7.4
"""Mean width of a character of the 12-unit label font, in drawing units (DejaVu Sans, bold: a wide one)."""
NUM_HOVER_POINTS = 60


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A labelled line; points that cannot be drawn (NaN, infinite, not above zero on a log axis) leave gaps."""

    label: str
    points: tuple[Point, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _Plot:
    """The axes of a line chart and the drawing they belong to."""

    root: ElementTree.Element
    across: Scale
    up: Scale

    def inside(self, point: Point) -> bool:
        """Say whether both values of a point can be drawn."""
        return math.isfinite(point[0]) and usable(point[1], self.up.log)


def undrawable(series: Sequence[Series], log: bool = False) -> int:
    """Count the points that a line chart leaves out, so that the page can say so."""
    return sum(not (math.isfinite(x) and usable(y, log)) for line in series for x, y in line.points)


def smoothing_window(series: Series) -> int:
    """Return how many points the moving mean of a long curve covers, or 0 for a curve drawn as it is."""
    return len(series.points) // 25 | 1 if len(series.points) >= SMOOTH_FROM else 0


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    log: bool = False,
    width: float = 440,
    height: float = 250,
) -> Markup:
    """Draw lines over common axes, each labelled at its right end; hovering over a line shows its values.

    Args:
        series: The lines; an empty one, or one without a drawable point, is listed in the description only.
        title: What the lines show, for screen readers (the page prints the visible title).
        x_label: Written below the horizontal axis.
        log: Logarithmic vertical axis.
        width: Width in drawing units; the page scales the drawing to its column.
        height: Height in drawing units.
    """
    lines = [
        Series(label=line.label, points=tuple(sorted(line.points, key=lambda p: p[0]))) for line in series
    ]
    root = drawing(
        width, height, f"{title}: " + ("; ".join(_summary(line, log) for line in lines) or "no data")
    )
    drawn = [
        point for line in lines for point in line.points if math.isfinite(point[0]) and usable(point[1], log)
    ]
    across = domain([x for x, _ in drawn])
    low, high = domain([y for _, y in drawn], log)
    if not log:
        low, high = widen(min(low, 0.0) if 0 <= low < 0.5 * high else low, high)
    ends = [_end(line, log) for line in lines]
    longest = max((len(end[1]) for end in ends if end is not None), default=0)
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    left = 12 + CHARACTER_WIDTH * max((len(tick_text(tick)) for tick in ticks), default=1)
    right = width - 14 - min(CHARACTER_WIDTH * longest, width * 0.4)
    plot = _Plot(
        root=root,
        across=Scale(low=across[0], high=across[1], start=left, end=right),
        up=Scale(low=low, high=high, start=height - 40, end=12, log=log),
    )
    _axes(plot, ticks, x_label)
    for index, line in enumerate(lines):
        _line(plot, line, index % NUM_COLOURS)
    _end_labels(plot, ends)
    return markup(root)


def _summary(line: Series, log: bool) -> str:
    """Describe a line by its first and last drawable values."""
    points = [point for point in line.points if math.isfinite(point[0]) and usable(point[1], log)]
    if not points:
        return f"{line.label}: no value to draw"
    (first_x, first_y), (last_x, last_y) = points[0], points[-1]
    return f"{line.label} from {first_y:.4g} at {first_x:g} to {last_y:.4g} at {last_x:g}"


def _end(line: Series, log: bool) -> tuple[float, str] | None:
    """Return where a line ends, as drawn, and its label there: the name, shortened if need be, and that value."""
    window = smoothing_window(line)
    shown = moving_mean(line.points, window) if window else line.points
    values = [y for x, y in shown if math.isfinite(x) and usable(y, log)]
    name = line.label if len(line.label) <= 22 else line.label[:21] + "…"
    return (values[-1], f"{name} {values[-1]:.3g}") if values else None


def _axes(plot: _Plot, ticks: Sequence[float], x_label: str) -> None:
    """Draw horizontal grid lines, both axes' ticks and the label of the horizontal one."""
    left, right, bottom = plot.across.start, plot.across.end, plot.up.start
    for tick in ticks:
        y = plot.up(tick)
        add(plot.root, "line", {"class": "grid", "x1": left, "x2": right, "y1": y, "y2": y})
        add(
            plot.root,
            "text",
            {"class": "tick", "x": left - 6, "y": y + 4, "text-anchor": "end"},
            tick_text(tick),
        )
    add(plot.root, "line", {"class": "axis", "x1": left, "x2": right, "y1": bottom, "y2": bottom})
    for tick in linear_ticks(plot.across.low, plot.across.high, 4):
        x = plot.across(tick)
        add(plot.root, "line", {"class": "axis", "x1": x, "x2": x, "y1": bottom, "y2": bottom + 4})
        add(
            plot.root,
            "text",
            {"class": "tick", "x": x, "y": bottom + 17, "text-anchor": "middle"},
            tick_text(tick),
        )
    middle = (left + right) / 2
    add(plot.root, "text", {"class": "tick", "x": middle, "y": bottom + 34, "text-anchor": "middle"}, x_label)


def _line(plot: _Plot, line: Series, colour: int) -> None:
    """Draw one line with its gaps, its moving mean where it is long, and points that answer to hovering."""
    group = add(plot.root, "g", {"class": f"series-{colour}"})
    window = smoothing_window(line)
    drawable = tuple(
        (x, y) if plot.inside((x, y)) else (x, math.nan) for x, y in line.points if math.isfinite(x)
    )
    _path(plot, group, thin(drawable), "line pale" if window else "line")
    if window:
        _path(plot, group, thin(moving_mean(drawable, window), 200), "line")
    finite = [point for point in drawable if plot.inside(point)]
    stride = max(1, math.ceil(len(finite) / NUM_HOVER_POINTS))
    for x, y in finite[::stride]:
        spot = add(group, "circle", {"class": "hover", "cx": plot.across(x), "cy": plot.up(y), "r": 5})
        add(spot, "title", {}, f"{line.label}: {y:.4g} at {x:g}")


def _path(plot: _Plot, group: ElementTree.Element, points: Sequence[Point], name: str) -> None:
    """Draw one run of points after another; a point between two gaps becomes a dot."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if plot.inside(point):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    steps: list[str] = []
    for run in runs:
        if len(run) == 1:
            add(
                group,
                "circle",
                {"class": "dot", "cx": plot.across(run[0][0]), "cy": plot.up(run[0][1]), "r": 3},
            )
            continue
        for index, (x, y) in enumerate(run):
            steps.append(f"{'L' if index else 'M'}{plot.across(x):.1f} {plot.up(y):.1f}")
    if steps:
        add(group, "path", {"class": name, "d": "".join(steps)})


def _end_labels(plot: _Plot, ends: Sequence[tuple[float, str] | None]) -> None:
    """Write each line's name where it ends, moved apart where two would overlap."""
    labels = [
        (plot.up(end[0]), index % NUM_COLOURS, end[1]) for index, end in enumerate(ends) if end is not None
    ]
    heights = apart([label[0] for label in labels], 14, plot.up.end, plot.up.start)
    for y, (_, colour, text) in zip(heights, labels, strict=True):
        place = {"class": f"label series-{colour}", "x": plot.across.end + 7, "y": y + 4}
        add(plot.root, "text", place, text)


def apart(positions: Sequence[float], gap: float, low: float, high: float) -> tuple[float, ...]:
    """Return positions near the given ones, in the same order, at least `gap` apart and within [low, high].

    Where there is no room for that gap, they are spread evenly over [low, high].
    """
    if len(positions) > 1:
        gap = min(gap, (high - low) / (len(positions) - 1))
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = [0.0] * len(positions)
    floor = low
    for index in order:
        placed[index] = floor = max(positions[index], floor)
        floor += gap
    ceiling = high
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return tuple(placed)
