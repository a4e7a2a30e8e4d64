"""CapFilt in a recipe and on the command line: who writes, who filters, what is kept. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from isthmus.config.base import Count, Settings
from isthmus.core.errors import UsageError

Variant = Literal["blip", "blip2"]
"""Which paper's rule: BLIP keeps what its filter calls a match, BLIP-2 the two best of ten captions and the web's."""


class Filtering(Settings):
    """What is written for each picture and what is kept of it; null takes the variant's own number."""

    variant: Variant = "blip"
    """`blip`: one caption by nucleus sampling, and every caption stays whose match is likelier than not; `blip2`: ten
    captions, ranked with the picture's own by similarity, of which two stay."""
    captions: Annotated[int, Field(ge=0)] | None = None
    """Captions that are written for each picture; 0: the picture's own alone are filtered."""
    threshold: float | None = None
    """The least score; for `blip` a probability of matching, for `blip2` a similarity within -1 and 1."""
    best: Count | None = None
    """How many of a picture's best captions stay."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Captions are drawn among the likeliest tokens that together have this probability."""
    max_tokens: Count = 30
    """Longest caption in tokens."""
    block_size: Count = 256
    """Pictures that are finished together: what a stop loses at most, and what is dealt to processes."""

    @property
    def num_captions(self) -> int:
        """How many captions are written for each picture."""
        own = {"blip": 1, "blip2": 10}[self.variant]
        return own if self.captions is None else self.captions

    @property
    def bound(self) -> float | None:
        """The least score, or None."""
        return 0.5 if self.threshold is None and self.variant == "blip" else self.threshold

    @property
    def num_best(self) -> int | None:
        """How many of the best stay, or None for all."""
        return 2 if self.best is None and self.variant == "blip2" else self.best


class CapfiltStage(Filtering):
    """Captions and filters the pictures of a source by models that earlier stages trained, into a new source."""

    kind: Literal["capfilt"] = "capfilt"
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
    """Its name and its folder in the run."""
    captioner: str | None = None
    """The earlier stage whose model writes captions; null only where `captions` is 0."""
    filter: str
    """The earlier stage whose model scores them."""
    data: str
    """The source that is filtered; it is never changed."""
    makes: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
    """The name of the source that it makes, for stages after it."""

    @property
    def model(self) -> None:
        """It trains none of the recipe's models."""
        return


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
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p is {self.top_p:g}; expected a share above 0, at most 1")

    @property
    def settings(self) -> Filtering:
        """The same as a block of a recipe."""
        return Filtering(**vars(self))


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
