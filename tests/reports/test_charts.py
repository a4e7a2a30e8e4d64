"""Line and bar charts: what is drawn where, and that labels are text."""

import math
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from isthmus.reports.bar_chart import Bar, bar_chart
from isthmus.reports.line_chart import Series, apart, line_chart, smoothing_window, undrawable
from isthmus.reports.scales import Point

HOSTILE = '</svg><script>alert("1")</script> & <b>'
SVG = "{http://www.w3.org/2000/svg}"


def drawn(markup: Markup) -> ElementTree.Element:
    """Parse a chart as XML, which fails on anything unescaped."""
    return ElementTree.fromstring(str(markup))


def paths(root: ElementTree.Element) -> list[str]:
    return [node.get("d") for node in root.iter(f"{SVG}path")]


def test_labels_are_escaped() -> None:
    charts = (
        line_chart([Series(label=HOSTILE, points=((0, 1), (1, 2)))], title=HOSTILE, x_label=HOSTILE),
        bar_chart([Bar(label=HOSTILE, value=0.5, text=HOSTILE, detail=HOSTILE)], title=HOSTILE, limit=1),
    )
    for chart in charts:
        assert "<script" not in chart
        assert "<b>" not in chart
        assert {node.tag for node in drawn(chart).iter()} <= {
            SVG + tag for tag in ("svg", "g", "path", "line", "text", "circle", "title", "rect")
        }
        assert any(HOSTILE in (node.text or "") for node in drawn(chart).iter(f"{SVG}title"))


def test_a_line_goes_from_its_first_to_its_last_point() -> None:
    root = drawn(line_chart([Series(label="a", points=((10, 0), (20, 10), (30, 5)))], title="t"))
    axis = next(node for node in root.iter(f"{SVG}line") if node.get("class") == "axis")
    left, right, bottom = (float(axis.get(name)) for name in ("x1", "x2", "y1"))
    (path,) = paths(root)
    (x0, y0), (x1, y1), (x2, y2) = (
        map(float, step.split()) for step in path.replace("M", "L").split("L")[1:]
    )
    assert (x0, x1, x2) == pytest.approx((left, (left + right) / 2, right), abs=0.1)
    assert (y0, y1) == pytest.approx((bottom, 12), abs=0.1)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1)


def test_values_that_are_not_finite_leave_gaps_and_are_counted() -> None:
    series = [Series(label="loss", points=((0, 1), (1, 2), (2, math.nan), (3, 1), (4, math.inf), (5, 2)))]
    root = drawn(line_chart(series, title="t"))
    (path,) = paths(root)
    assert path.count("M") == 1
    assert path.count("L") == 1
    assert len([node for node in root.iter(f"{SVG}circle") if node.get("class") == "dot"]) == 2
    assert undrawable(series) == 2
    assert undrawable([Series(label="x", points=((0, 0), (1, 1)))], log=True) == 1
    assert "nan" not in str(line_chart(series, title="t"))


def test_the_last_finite_value_is_the_label() -> None:
    root = drawn(line_chart([Series(label="loss", points=((2, math.nan), (0, 3), (1, 0.1234)))], title="t"))
    assert "loss 0.123" in [node.text for node in root.iter(f"{SVG}text")]
    assert root.get("aria-label") == "t: loss from 3 at 0 to 0.1234 at 1"


@pytest.mark.parametrize("points", [(), ((1, math.nan),), ((3, 0.0),), ((3, 7.0),)])
@pytest.mark.parametrize("log", [False, True])
def test_nothing_and_one_point_can_be_drawn(points: tuple[Point, ...], log: bool) -> None:
    drawn(line_chart([Series(label="a", points=points)], title="t", log=log))
    drawn(line_chart([], title="t", log=log))


def test_a_long_curve_is_thinned_and_smoothed() -> None:
    points = tuple((step, 1 / (step + 1)) for step in range(50_000))
    series = Series(label="loss", points=points)
    chart = line_chart([series], title="t", log=True)
    assert len(chart) < 40_000
    assert len(paths(drawn(chart))) == 2
    assert smoothing_window(series) == 2001
    assert smoothing_window(Series(label="short", points=points[:149])) == 0


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ((50, 52), (50, 60)),
        ((52, 50), (60, 50)),
        ((99, 99, 99), (80, 90, 100)),
        ((10,), (10,)),
        ((), ()),
        (tuple([5] * 21), tuple(5 * i for i in range(21))),
    ],
)
def test_labels_are_moved_apart_and_stay_inside(
    positions: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    assert apart(positions, 10, 0, 100) == pytest.approx(expected)


def test_bars_are_as_long_as_their_values() -> None:
    bars = [
        Bar(label="a", value=0.25, text="25%", interval=(0.2, 0.3)),
        Bar(label="b", value=math.nan, text="–", interval=(math.nan, 1)),
        Bar(label="c", value=7, text="7"),
        Bar(label="d", value=-1, text="-1"),
    ]
    root = drawn(bar_chart(bars, title="t", limit=1))
    widths = {
        name: [float(node.get("width")) for node in root.iter(f"{SVG}rect") if node.get("class") == name]
        for name in ("track", "fill")
    }
    (track,) = set(widths["track"])
    assert widths["fill"] == pytest.approx([track / 4, track, 0])
    (whisker,) = set(paths(root))
    assert whisker.startswith(f"M{1 + 0.2 * track:.1f} ")
    assert f"H{1 + 0.3 * track:.1f}" in whisker
