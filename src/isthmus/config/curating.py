"""What `isthmus curate capfilt` may be told; each text is what `--help` says of the option. Never imports torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from isthmus.core.errors import UsageError

Variant = Literal["blip", "blip2"]
"""Which paper's rule: BLIP keeps what its filter calls a match, BLIP-2 the two best of ten captions and the web's."""


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """The rule, as `isthmus curate capfilt` is told it.

    Raises:
        UsageError: A number is out of range.
    """

    variant: Annotated[
        Variant, "blip keeps what matches; blip2 the two most similar of ten and the web's."
    ] = "blip"
    captions: Annotated[int | None, "Captions written for each picture; blip 1, blip2 10 without it."] = None
    threshold: Annotated[float | None, "Least score; blip 0.5, blip2 none without it."] = None
    best: Annotated[int | None, "Best captions kept of each picture; blip all, blip2 2 without it."] = None
    top_p: Annotated[float, "Nucleus that captions are drawn from."] = 0.9
    max_tokens: Annotated[int, "Longest caption in tokens."] = 30
    block_size: Annotated[int, "Pictures that are finished together and dealt to processes."] = 256

    def __post_init__(self) -> None:
        for name, value, least in (
            ("captions", self.captions, 0),
            ("best", self.best, 1),
            ("max-tokens", self.max_tokens, 1),
            ("block-size", self.block_size, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}; expected {least} or more")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"--threshold is {self.threshold:g}; expected a finite number")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p is {self.top_p:g}; expected a share above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which runs write and filter.

    Raises:
        UsageError: The share is no `i/n`.
    """

    filter: Annotated[Path | None, "A run whose model matches (blip), or compares (blip2)."] = None
    filter_model: Annotated[str | None, "One of that run's named models."] = None
    captioner: Annotated[Path | None, "A run whose model writes captions."] = None
    captioner_model: Annotated[str | None, "One of that run's named models."] = None
    table: Annotated[str | None, "CSV, TSV or JSONL inside a folder of pictures."] = None
    limit: Annotated[int | None, "Most pictures."] = None
    shard: Annotated[str | None, "i/n: this process does every n-th block, from the i-th on."] = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is {self.limit}; expected 1 or more")
        if self.shard is not None and self.part is None:
            raise UsageError(f"--shard is '{self.shard}'; expected i/n with i from 1 to n, such as 2/4")

    @property
    def part(self) -> tuple[int, int] | None:
        """Number of this process from 1 on, and how many there are; None where that is not said."""
        first, _, second = (self.shard or "").partition("/")
        if not (first.isascii() and first.isdigit() and second.isascii() and second.isdigit()):
            return None
        return (int(first), int(second)) if 1 <= int(first) <= int(second) else None
