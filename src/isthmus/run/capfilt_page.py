"""What the page of `isthmus curate capfilt` shows: counts, and some pictures with kept and dropped captions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.data.samples import Source
from isthmus.reports.capfilt import CapFiltContent, Card, Line, OriginRow, write_capfilt_page
from isthmus.reports.examples import Picture

_CARDS = 36
_WEB, _SYNTHETIC = "given", "written"


def write_page(
    result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], source: Source, file: Path, *, rule: str
) -> None:
    """Write it.

    Args:
        result: What the command found.
        rows: The decisions about every picture.
        source: Where the pictures are.
        file: Where the page goes.
        rule: What decided, in words.

    Raises:
        MachineError: The file cannot be written.
    """
    names = {"web": f"{_WEB} with the picture", "synthetic": f"{_SYNTHETIC} for it"}
    origins = [
        OriginRow(
            name=names[origin],
            captions=counts["captions"],
            kept=counts["kept"],
            share=f"{counts['kept'] / counts['captions']:.1%}" if counts["captions"] else "-",
        )
        for origin, counts in result["origins"].items()
    ]
    step = max(1, len(rows) // _CARDS)
    content = CapFiltContent(
        kept=result["kept"],
        total=result["kept"] + result["dropped"],
        pictures=result["pictures"],
        rule=rule,
        origins=origins,
        reasons=result["reasons"],
        cards=[_card(row, source) for row in rows[::step][:_CARDS]],
    )
    write_capfilt_page(content, file)


def _card(row: Mapping[str, Any], source: Source) -> Card:
    image = source.sample(row["index"]).images[0]
    lines = [
        Line(
            origin=_WEB if one["origin"] == "web" else _SYNTHETIC,
            score="-" if one["score"] is None else f"{one['score']:.2f}",
            text=one["caption"] or "(empty)",
            kept=one["kept"],
            why=one["dropped"] or "",
        )
        for one in row["decisions"]
    ]
    return Card(picture=Picture(image=image.picture(), name=image.name), lines=lines)
