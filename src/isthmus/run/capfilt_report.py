"""The page of a CapFilt run: how many captions were kept, and pictures with all their captions and scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from isthmus.curation.capfilt.folder import CapfiltFolder
from isthmus.data.pictures import BadSample
from isthmus.data.samples import Source
from isthmus.reports.content import (
    Estimate,
    Header,
    MetricRow,
    MetricTable,
    Provenance,
    ReportContent,
    Results,
)
from isthmus.reports.examples import Examples, FilteredCaption, FilteredExample, Picture, choose_rows
from isthmus.reports.page import write_report
from isthmus.reports.wording import MISSING, number

NUM_PICTURES = 24
MIN_WITH_DROPPED = 12
MAX_PX = 640
"""Pictures are shrunk to this as soon as they are read."""


def write_capfilt_report(
    folder: CapfiltFolder,
    source: Source,
    counts: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    name: str,
) -> None:
    """Write `report.html` of a folder whose blocks are all done.

    Raises:
        MachineError: The page cannot be written.
    """
    content = ReportContent(
        header=Header(recipe=name, finished=datetime.now(tz=UTC)),
        results=Results(metrics=(counts_table(counts),)),
        examples=filtered_examples(folder, source),
        provenance=Provenance(
            seed=settings.get("seed"),
            notes=tuple(
                f"{key}: {value}." for key, value in settings.items() if value is not None and key != "seed"
            ),
        ),
    )
    write_report(content, folder.report)


def with_filtered(results: Results, stages: Sequence[Mapping[str, Any]]) -> Results:
    """A run's results with a table for each stage that filtered captions."""
    tables = tuple(
        replace(table, title=f"{table.title} by stage {stage['name']}", note=f"{table.note} {_where(stage)}")
        for stage in stages
        if "by_origin" in stage
        for table in [counts_table(stage)]
    )
    return replace(results, metrics=(*results.metrics, *tables))


def _where(stage: Mapping[str, Any]) -> str:
    return f"Pictures with their captions: {stage['name']}/report.html in the run directory."


def counts_table(counts: Mapping[str, Any]) -> MetricTable:
    """Shares of the captions that were kept, and dropped for each reason, by where captions come from."""
    by_origin = counts["by_origin"]
    reasons = list(dict.fromkeys(reason for one in by_origin.values() for reason in one["dropped"]))
    rows = tuple(
        MetricRow(
            name=f"{origin}, {one['written']:,} captions",
            estimates=tuple(
                Estimate(value=value / one["written"])
                for value in (one["kept"], *(one["dropped"].get(reason, 0) for reason in reasons))
            ),
        )
        for origin, one in by_origin.items()
        if one["written"]
    )
    return MetricTable(
        title="Captions kept and dropped",
        columns=("kept", *reasons),
        rows=rows,
        measure="percent",
        note=f"{counts['kept']:,} of {counts['written']:,} captions were kept, of {counts['pictures']:,} pictures"
        + (
            f"; {counts['unusable_pictures']:,} pictures cannot be used."
            if counts["unusable_pictures"]
            else "."
        ),
    )


def filtered_examples(folder: CapfiltFolder, source: Source) -> Examples:
    """Pictures evenly spaced over the source, so that some have a dropped caption, with all their captions."""
    is_clean = [all(line["kept"] for line in lines) for _, lines in _pictures(folder)]
    chosen = set(choose_rows(is_clean, NUM_PICTURES, MIN_WITH_DROPPED))
    shown = []
    for place, (row, lines) in enumerate(_pictures(folder)):
        picture = _picture(source, row) if place in chosen else None
        if picture is not None:
            shown.append(FilteredExample(picture=picture, captions=tuple(map(_caption, lines))))
    said = (
        f"Evenly spaced over {len(is_clean):,} pictures, at least {MIN_WITH_DROPPED} of them with a dropped caption "
        f"where there are. Every caption with its score stands in {folder.decisions.name}."
    )
    return Examples(filtered=tuple(shown), chosen_by=said)


def _pictures(folder: CapfiltFolder) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for row, lines in groupby(folder.lines(), key=lambda line: line["row"]):
        yield row, list(lines)


def _caption(line: Mapping[str, Any]) -> FilteredCaption:
    return FilteredCaption(
        caption=line["caption"] or "",
        origin=line["from"],
        score=MISSING if line["score"] is None else number(line["score"]),
        reason=line["reason"],
    )


def _picture(source: Source, row: int) -> Picture | None:
    """A picture of the source, or None where it cannot be read."""
    try:
        ref = source.sample(row).images[0]
        image = ref.picture()
    except (BadSample, IndexError):
        return None
    image.thumbnail((MAX_PX, MAX_PX))
    return Picture(image=image, name=ref.name)
