"""Sources made of another source of the same recipe, which stands above them."""

from typing import Annotated, Literal

from pydantic import Field

from isthmus.config.base import Count, NotNegative, Settings


class PartSource(Settings):
    """A stretch of another source."""

    kind: Literal["part"] = "part"
    of: str
    """The source."""
    first: Annotated[int, Field(ge=0)] = 0
    """Its first sample that is taken, counted from 0."""
    count: Count | None = None
    """How many are taken; null: all that follow."""


class ExchangedSource(Settings):
    """Another source with some captions exchanged for those of other pictures, to see what noise does."""

    kind: Literal["exchanged"] = "exchanged"
    of: str
    """The source."""
    share: Annotated[NotNegative, Field(le=1.0)]
    """How likely each caption is exchanged."""
    seed: int = 0
    """Which captions, and what stands in their place."""


class RecaptionedSource(Settings):
    """Another source with the captions that `isthmus curate capfilt` kept; pictures without any are left out."""

    kind: Literal["recaptioned"] = "recaptioned"
    of: str
    """The source that the captions were made for."""
    captions: str
    """The `captions.jsonl` that was written."""
    origin: Literal["all", "web", "synthetic"] = "all"
    """Which of the kept captions are read: those that the source had, those that were written, or both."""


DerivedSource = PartSource | ExchangedSource | RecaptionedSource
"""A source made of another one."""
