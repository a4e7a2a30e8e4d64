"""One self-contained HTML page about captions that a filter kept and dropped, beside their pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.reports.examples import Picture
from isthmus.reports.page import environment, write_page


@dataclass(frozen=True, kw_only=True)
class Line:
    """One caption: where it is from, its score in words, what it says, and why it was dropped if it was."""

    origin: str
    score: str
    text: str
    kept: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A picture and its captions."""

    picture: Picture
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class OriginRow:
    """Captions of one origin: how many were judged and kept, and the share in words."""

    name: str
    captions: int
    kept: int
    share: str


@dataclass(frozen=True, kw_only=True)
class CapFiltContent:
    """What the page shows.

    Attributes:
        kept: Captions kept.
        total: All captions.
        pictures: Pictures judged.
        rule: What decided, in words.
        origins: A row for each origin.
        reasons: How many captions were dropped for what.
        cards: Some pictures.
    """

    kept: int
    total: int
    pictures: int
    rule: str
    origins: Sequence[OriginRow]
    reasons: Mapping[str, int]
    cards: Sequence[Card]


def write_capfilt_page(content: CapFiltContent, path: Path) -> int:
    """Write the page and return its size in bytes.

    Raises:
        DataError: A picture cannot be decoded.
        MachineError: The file cannot be written.
    """
    return write_page(environment().get_template("capfilt.html.j2").render(content=content), path)
