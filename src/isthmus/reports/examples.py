"""Rows of the test set that a report shows, and what a filter decided about captions, with their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from PIL import Image


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture and the name its source gives it; bytes are an encoded PNG, JPEG or other still image."""

    image: Image.Image | bytes
    name: str


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerExample:
    """A question, the model's answer, the truth, and its answer to a blank picture ("" = not asked)."""

    pictures: tuple[Picture, ...]
    question: str
    answer: str
    truth: str
    right: bool
    kind: str = ""
    blank_answer: str = ""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionExample:
    """A generated caption beside what people wrote; `other_caption` is the one with another row's picture."""

    picture: Picture
    caption: str
    references: tuple[str, ...]
    score: str = ""
    other_caption: str = ""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalHit:
    """One of the photos found for a text; `right` marks the photo the text belongs to."""

    picture: Picture
    right: bool


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalExample:
    """A text, the best photos in order, and where the right one came (1 = first) among how many.

    `right_picture` is shown after the hits where the right photo is not among them.
    """

    query: str
    hits: tuple[RetrievalHit, ...]
    rank: int
    num_candidates: int
    right_picture: Picture | None = None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StripExample:
    """Several states of one picture side by side in one image, and a number about it as `label`."""

    picture: Picture
    label: str


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FilteredCaption:
    """A caption that was kept or dropped: who wrote it, its score as text, and why it was dropped ("" = kept)."""

    caption: str
    origin: str
    score: str
    reason: str = ""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FilteredExample:
    """A picture with all its captions, kept and dropped."""

    picture: Picture
    captions: tuple[FilteredCaption, ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Rows of the test set to look at; `chosen_by` is a sentence on how they were picked."""

    answers: tuple[AnswerExample, ...] = ()
    captions: tuple[CaptionExample, ...] = ()
    retrievals: tuple[RetrievalExample, ...] = ()
    strips: tuple[StripExample, ...] = ()
    filtered: tuple[FilteredExample, ...] = ()
    chosen_by: str = ""


def choose_rows(right: Sequence[bool], count: int = 12, min_mistakes: int = 3) -> tuple[int, ...]:
    """Pick `count` rows evenly spaced over the test set, at least `min_mistakes` wrong ones where there are.

    Returns:
        The chosen indices in ascending order; the same ones for the same input.

    Raises:
        ValueError: A number is negative, or more mistakes than rows are asked for.
    """
    if not 0 <= min_mistakes <= count:
        raise ValueError(f"expected 0 <= min_mistakes <= count, but got {min_mistakes} and {count}")
    chosen = _spread(range(len(right)), count)
    missing = min_mistakes - sum(not right[index] for index in chosen)
    spare_mistakes = [index for index in range(len(right)) if not right[index] and index not in set(chosen)]
    added = _spread(spare_mistakes, max(0, missing))
    dropped = _spread([index for index in chosen if right[index]], max(0, len(chosen) + len(added) - count))
    return tuple(sorted((set(chosen) - set(dropped)) | set(added)))


def _spread(items: Sequence[int], count: int) -> list[int]:
    """Return `count` of the items (all, if there are fewer), one from the middle of each equal piece."""
    count = min(count, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]
