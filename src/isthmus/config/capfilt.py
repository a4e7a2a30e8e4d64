"""CapFilt in a recipe: who writes, who filters, what is kept."""

from typing import Annotated, Literal

from pydantic import Field

from isthmus.config.base import Count, Settings
from isthmus.config.curating import Variant


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
