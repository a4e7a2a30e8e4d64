"""What a sample is read as: which turns a row has, and how samples are counted into an epoch."""

from bisect import bisect_right
from itertools import accumulate
from typing import Literal, final

from isthmus.core.errors import DataError
from isthmus.core.randomness import seed_of
from isthmus.data.pictures import BadSample
from isthmus.data.samples import ImagePart, Sample, Source, Turn

RowKind = Literal[
    "captions", "questions", "conversations", "text", "text_answers", "regions", "pictures", "classes"
]

WORDS_ONLY = ("text", "text_answers")
"""Rows without pictures: every word is learnt, or only what the assistant says."""
CaptionUse = Literal["one", "all", "each"]
"""One caption of each sample an epoch, every caption as a row, or all captions of a picture in one row."""

EVERY = -1
"""The choice that means every caption at once."""


def turns_of(sample: Sample, *, rows: RowKind, choice: int, prompt: str | None = None) -> tuple[Turn, ...]:
    """The conversation that a row holds, question and answer alike.

    Args:
        sample: Where it comes from.
        rows: `captions`: the pictures (and a prompt) ask, a caption answers. `questions`: pictures and question ask,
            the first accepted answer answers. `conversations`: the sample's own turns. `text` and `text_answers`: words
            without pictures.
        choice: Which of the captions or texts; counted on from the first again where there are fewer.
        prompt: What is asked beside the pictures of caption rows.

    Raises:
        DataError: The sample has nothing of this kind.
    """
    pictures = tuple(ImagePart(index) for index in range(len(sample.images)))
    if rows == "captions":
        _expect(sample, sample.captions, "caption", rows)
        asked = (*pictures, prompt) if prompt else pictures
        return Turn("user", asked), Turn("assistant", (sample.captions[choice % len(sample.captions)],))
    if rows == "questions":
        _expect(sample, sample.question, "question", rows)
        _expect(sample, sample.answers, "answer", rows)
        return Turn("user", (*pictures, str(sample.question))), Turn("assistant", (sample.answers[0],))
    if rows == "conversations":
        _expect(sample, sample.turns, "conversation", rows)
        return sample.turns
    return _text_turns(sample, choice)


def sample_for(source: Source, index: int, rows: RowKind) -> Sample:
    """The sample that a row of this kind is made from.

    Raises:
        BadSample: The sample's own record is damaged.
    """
    return source.text_sample(index) if rows in WORDS_ONLY else source.sample(index)


def prompt_of(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """What comes before the last answer: the part that a model continues."""
    last = max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
    return turns[:last]


def _text_turns(sample: Sample, choice: int) -> tuple[Turn, ...]:
    texts = sample.texts or sample.captions
    if texts:
        return (Turn("assistant", (texts[choice % len(texts)],)),)
    if sample.question is not None and sample.answers:
        return Turn("user", (sample.question,)), Turn("assistant", (sample.answers[0],))
    _expect(sample, sample.turns, "text", "text")
    return tuple(
        Turn(turn.role, tuple(part for part in turn.parts if not isinstance(part, ImagePart)))
        for turn in sample.turns
    )


def _expect(sample: Sample, found: object, name: str, rows: RowKind) -> None:
    if not found:
        raise DataError(
            f"{sample.origin} has no {name}, which rows of kind '{rows}' need; choose other rows or another data set"
        )


@final
class RowIndex:
    """Counts the rows of an epoch: one a sample, or one for each of its captions.

    Args:
        source: The samples.
        captions: `one` takes one caption of each sample an epoch, drawn anew each epoch; `all` takes every caption
            once; `each` takes all captions of a sample together.
        seed: The run's seed.

    Raises:
        DataError: The source is empty.
    """

    def __init__(self, source: Source, *, captions: CaptionUse = "one", seed: int = 0) -> None:
        if len(source) == 0:
            raise DataError(f"the data set is empty ({source.format}); expected at least one sample")
        self.source = source
        self.captions = captions
        self.seed = seed
        self._ends: list[int] = []
        if captions == "all":
            self._ends = list(accumulate(_num_rows(source, index) for index in range(len(source))))

    def __len__(self) -> int:
        return self._ends[-1] if self.captions == "all" else len(self.source)

    def __call__(self, row: int, epoch: int) -> tuple[int, int]:
        """The sample of a row and the number of its caption: a pure function of seed, epoch and row."""
        if self.captions == "each":
            return row, EVERY
        if self.captions == "one":
            return row, seed_of(self.seed, "caption", epoch, row)
        sample = bisect_right(self._ends, row)
        return sample, row - (self._ends[sample - 1] if sample else 0)


def _num_rows(source: Source, index: int) -> int:
    # A damaged sample or one without captions keeps one row, so that whoever reads it counts or refuses it.
    try:
        return max(source.num_captions(index), 1)
    except BadSample:
        return 1
