"""What every part of a recipe shares: closed and frozen, and a way to say several mistakes at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """A block of a recipe: unknown keys are mistakes, values do not change, `"3"` is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSettings(Settings):
    """A kind of model."""

    @property
    def inner_parts(self) -> dict[str, str]:
        """What a stage can keep frozen inside a part that it trains, and that part; in most kinds nothing."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that is wrong in a recipe.

    Attributes:
        path: Keys and indices below the block that found it.
        found: What stands there.
        allowed: What may stand there.
        choices: The words among which the nearest match is looked for.
    """

    path: tuple[str | int, ...]
    found: str
    allowed: str
    choices: tuple[str, ...] = ()


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise all mistakes as one validation error; no mistakes, no error.

    Raises:
        PydanticCustomError: There is at least one mistake.
    """
    if not mistakes:
        return
    first = mistakes[0]
    context: dict[str, Any] = {
        "mistakes": tuple(mistakes),
        "path": ".".join(map(str, first.path)),
        "found": first.found,
        "allowed": first.allowed,
    }
    raise PydanticCustomError("mistakes", "{path}: found {found}, allowed: {allowed}", context)


def undivided(part: tuple[str | int, ...], value: int, *, whole: str, total: int) -> list[Mistake]:
    """A mistake where the value at `part` does not divide that of the key `whole`; none where it does."""
    if total % value == 0:
        return []
    return [Mistake(path=part, found=str(value), allowed=f"a number that divides {whole} = {total}")]


def one_of(words: Sequence[str]) -> str:
    """The allowed words of a mistake as text, in the order given."""
    return ", ".join(words) if words else "nothing"


Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
"""One or more names; written as a list in YAML."""

Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""Any number of texts; written as a list in YAML."""

Count = Annotated[int, Field(gt=0)]
"""A whole number above 0."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A share in [0, 1)."""

Positive = Annotated[float, Field(gt=0.0)]
"""A number above 0."""

NotNegative = Annotated[float, Field(ge=0.0)]
"""A number of 0 or more."""
