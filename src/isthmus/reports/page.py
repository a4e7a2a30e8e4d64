"""One self-contained HTML page a run: no script, nothing loaded from elsewhere, every text escaped.

A report of a few hundred small drawings or a few dozen photos stays below 2 MB: photos are embedded at 320 pixels
(retrieval hits at 200), about 20 kB each, curves are thinned to 600 points.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from isthmus.core.files import replacing
from isthmus.reports import wording
from isthmus.reports.bar_chart import Bar, bar_chart
from isthmus.reports.content import Chart, Controls, Estimate, KindRow, ReportContent, VerdictState
from isthmus.reports.line_chart import Series, line_chart, smoothing_window, undrawable
from isthmus.reports.pictures import embed
from isthmus.reports.scales import nice_step, tick_text

HEADLINES: dict[VerdictState, str] = {
    "sees": "It looks at the picture",
    "guesses": "It does not look at the picture",
    "unsure": "Not sure that it looks",
}


def render(content: ReportContent) -> str:
    """Return the whole page as HTML text; sections without data are left out.

    Raises:
        DataError: A picture cannot be decoded.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        amount=wording.amount,
        interval=wording.interval,
        duration=wording.duration,
        memory=wording.memory,
        count=wording.count,
        roughly=wording.roughly,
        number=wording.number,
        embed=embed,
        capitalize_first=_capitalized,
    )
    return environment.get_template("page.html.j2").render(
        content=content,
        title=_title(content),
        headlines=HEADLINES,
        draw_controls=_control_bars,
        draw_chart=_chart,
        chart_notes=_chart_notes,
        gap=_gap,
        all_kinds=_all_kinds,
    )


def write_report(content: ReportContent, path: Path) -> int:
    """Write the page to `path` and return its size in bytes; an older report stays whole until the new one is.

    Raises:
        DataError: A picture cannot be decoded.
        MachineError: The file cannot be written, for example because the disk is full.
    """
    page = render(content).encode("utf-8", errors="replace")
    with replacing(
        path, advice=f"the report needs {len(page):,} bytes; free some space or choose another folder"
    ) as unfinished:
        unfinished.write_bytes(page)
    return len(page)


def _title(content: ReportContent) -> str:
    """Return what the browser shows as the page's name."""
    verdict = content.header.verdict
    return (
        content.header.recipe if verdict is None else f"{content.header.recipe}: {HEADLINES[verdict.state]}"
    )


def _detail(estimate: Estimate, controls: Controls) -> str:
    """Describe the interval and the number of samples behind an estimate."""
    said: list[str] = []
    if estimate.interval is not None:
        said.append(f"95% interval {wording.interval(*estimate.interval, controls.measure)}")
    if estimate.n is not None:
        said.append(f"n = {estimate.n:,}")
    return ", ".join(said)


def _control_bars(controls: Controls) -> Markup:
    """Draw the controls from 0 to 100%, or from 0 to the next round number for other measures."""
    bars = [
        Bar(
            label=control.label,
            value=control.estimate.value,
            text=wording.amount(control.estimate.value, controls.measure),
            interval=control.estimate.interval,
            detail=_detail(control.estimate, controls),
            strong=control.real,
        )
        for control in controls.controls
    ]
    if controls.measure == "percent":
        return bar_chart(bars, title=controls.quantity, limit=1.0, format_tick=wording.percent)
    ends = [
        end for bar in bars for end in (bar.value, *(bar.interval or ())) if math.isfinite(end) and end > 0
    ]
    step = nice_step(max(ends, default=1.0), 4)
    limit = step * math.ceil(max(ends, default=1.0) / step - 1e-9)
    return bar_chart(bars, title=controls.quantity, limit=limit, format_tick=tick_text)


def _gap(controls: Controls, estimates: Sequence[Estimate | None]) -> str:
    """Write the real picture's lead over the best other control, or a dash where one of them is missing."""
    pairs = [(control.real, estimate) for control, estimate in zip(controls.controls, estimates, strict=True)]
    real = [estimate.value for is_real, estimate in pairs if is_real and estimate is not None]
    others = [estimate.value for is_real, estimate in pairs if not is_real and estimate is not None]
    if not real or not others:
        return wording.MISSING
    return wording.difference(real[0] - max(others), controls.measure)


def _all_kinds(controls: Controls) -> KindRow:
    """Return the row of the kinds table that stands for all questions together."""
    return KindRow(kind="all", estimates=tuple(control.estimate for control in controls.controls))


def _series(chart: Chart) -> list[Series]:
    """Return the chart's curves in the form the drawing takes."""
    return [Series(label=curve.label, points=curve.points) for curve in chart.curves]


def _chart(chart: Chart) -> Markup:
    """Draw one chart of curves."""
    return line_chart(_series(chart), title=chart.title, x_label=chart.x_label, log=chart.log)


def _chart_notes(chart: Chart) -> str:
    """Say below a chart what its drawing does not show by itself."""
    series = _series(chart)
    notes = ["Logarithmic axis."] if chart.log else []
    windows = sorted({window for line in series if (window := smoothing_window(line))})
    if windows:
        notes.append(f"Pale: as measured; strong: mean over {' or '.join(map(str, windows))} points.")
    missing = undrawable(series, chart.log)
    if missing:
        why = "not finite or not above zero" if chart.log else "not finite"
        notes.append(f"{missing:,} {'value is' if missing == 1 else 'values are'} {why} and left out.")
    return " ".join(notes)


def _capitalized(text: str) -> str:
    """Return the text with a capital first letter and the rest as it is."""
    return text[:1].upper() + text[1:]
