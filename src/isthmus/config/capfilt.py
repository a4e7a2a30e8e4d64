"""What `isthmus curate capfilt` may be told; each text is what `--help` says of the option. Never imports torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from isthmus.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CapFiltOptions:
    """Who writes, who filters, and what is kept.

    Raises:
        UsageError: A number is out of range.
    """

    captioner: Annotated[Path, "A run that writes captions."]
    filter: Annotated[Path, "A run that says whether a caption belongs to a picture."]
    table: Annotated[str | None, "The table of captions, where DATA is a folder."] = None
    captions: Annotated[int, "Captions written for each picture."] = 1
    top_p: Annotated[
        float, "They are drawn among the likeliest words that hold this share (nucleus sampling)."
    ] = 0.9
    threshold: Annotated[float, "Least probability of a match that is kept."] = 0.5
    keep: Annotated[
        int | None,
        "Keep this many captions most like their picture in place of a threshold (BLIP-2: 2 of 10).",
    ] = None
    part: Annotated[str, "Which of several processes this is, such as 1/4; all write to one --out."] = "1/1"

    def __post_init__(self) -> None:
        if self.captions < 0 or (self.keep is not None and self.keep < 1):
            raise UsageError(
                f"--captions is {self.captions} and --keep {self.keep}; expected 0 or more, and 1 or more"
            )
        if not 0 < self.top_p <= 1 or not 0 <= self.threshold <= 1:
            raise UsageError(
                f"--top-p is {self.top_p:g} and --threshold {self.threshold:g}; expected shares between 0 and 1"
            )
        found = re.fullmatch(r"(\d+)/(\d+)", self.part)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--part is '{self.part}'; expected such as 1/4: the first of four processes")

    @property
    def place(self) -> tuple[int, int]:
        """Which process this is, counted from 0, and how many there are."""
        number, of = self.part.split("/")
        return int(number) - 1, int(of)

    @property
    def rule(self) -> str:
        """What decides, in words."""
        if self.keep is None:
            return f"kept from a match of {self.threshold:g} on"
        return f"the {self.keep} captions most like their picture are kept"
