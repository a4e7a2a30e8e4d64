"""Captioning and filtering of one block of pictures: a pure function of the block, so that any process may do it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from isthmus.core.errors import GuardError
from isthmus.core.randomness import seed_of
from isthmus.curation.capfilt.decisions import Candidate, Decision, Rule, candidates_of, decide, plain
from isthmus.data.pictures import BadSample
from isthmus.data.samples import ImageRef, Sample, Source

Write = Callable[[Sequence[Sample], int], list[str]]
"""Writes one caption for each sample, drawn from a seed."""

Score = Callable[[Sequence[tuple[ImageRef, str]]], list[float]]
"""Scores pairs of pictures and captions."""


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """How blocks are worked on.

    Attributes:
        captions: How many captions are written for each picture.
        rule: Which captions are kept.
        seed: What drawn captions depend on, beside block and draw.
        block_size: Pictures a block.
    """

    captions: int
    rule: Rule
    seed: int
    block_size: int

    def num_blocks(self, num_samples: int) -> int:
        """Into how many blocks a source is cut."""
        return math.ceil(num_samples / self.block_size)

    def rows(self, block: int, num_samples: int) -> range:
        """The rows of a block."""
        return range(block * self.block_size, min((block + 1) * self.block_size, num_samples))


@final
@dataclass(frozen=True, kw_only=True)
class Decided:
    """A picture with what became of its captions.

    Attributes:
        row: Its place in the source.
        sample: The sample; None where its record is damaged.
        decisions: One for each caption, those that came with it first.
        problem: Why the picture cannot be used; empty where it can.
    """

    row: int
    sample: Sample | None
    decisions: tuple[Decision, ...] = ()
    problem: str = ""

    @property
    def kept(self) -> tuple[str, ...]:
        """The captions that are kept, in order."""
        return tuple(one.candidate.caption.strip() for one in self.decisions if one.kept)

    def lines(self) -> Iterator[dict[str, Any]]:
        """One record for each caption; one without a caption for a picture that has none."""
        place = {"row": self.row, "id": self.sample.id if self.sample is not None else None}
        for one in self.decisions:
            found = one.candidate
            yield place | {
                "caption": found.caption,
                "from": found.origin,
                "score": found.score,
                "kept": one.kept,
                "reason": one.reason,
            }
        if not self.decisions:
            nothing = {"caption": None, "from": "web", "score": None, "kept": False}
            yield place | nothing | {"reason": self.problem}


def decide_block(
    source: Source, block: int, plan: Plan, *, write: Write | None, score: Score
) -> list[Decided]:
    """Write captions for a block's pictures, score all that there are, and decide.

    Args:
        source: Where pictures and their captions come from.
        block: Which block.
        plan: How.
        write: The captioner; None where `plan.captions` is 0.
        score: The filter.

    Raises:
        GuardError: The filter gives a score that is no finite number.
    """
    decided = {row: _opened(source, row) for row in plan.rows(block, len(source))}
    samples = {row: one.sample for row, one in decided.items() if not one.problem and one.sample is not None}
    written: dict[int, list[str]] = {row: [] for row in samples}
    for draw in range(plan.captions if write is not None and samples else 0):
        assert write is not None
        texts = write(list(samples.values()), seed_of(plan.seed, "capfilt", block, draw))
        for row, text in zip(samples, texts, strict=True):
            written[row].append(text)
    found = {row: candidates_of(sample.captions, written[row]) for row, sample in samples.items()}
    scored = _scored({row: (samples[row], found[row]) for row in samples}, score)
    for row, candidates in scored.items():
        decided[row] = replace(decided[row], decisions=tuple(decide(candidates, plan.rule)))
    return list(decided.values())


def _opened(source: Source, row: int) -> Decided:
    """A row with its picture looked at once, so that a damaged one is named and not met in the middle of a batch."""
    try:
        sample = source.sample(row)
    except BadSample as error:
        return Decided(row=row, sample=None, problem=str(error))
    if not sample.images:
        return Decided(row=row, sample=sample, problem=f"{sample.origin} has no picture")
    try:
        sample.images[0].picture()
    except BadSample as error:
        return Decided(
            row=row,
            sample=sample,
            problem=str(error),
            decisions=tuple(
                Decision(candidate=one, reason=str(error)) for one in candidates_of(sample.captions, ())
            ),
        )
    return Decided(row=row, sample=sample)


def _scored(found: dict[int, tuple[Sample, list[Candidate]]], score: Score) -> dict[int, list[Candidate]]:
    """The candidates with scores; captions that say the same are scored once, empty ones not at all."""
    pairs: dict[tuple[int, str], tuple[ImageRef, str]] = {}
    for row, (sample, candidates) in found.items():
        for one in candidates:
            if plain(one.caption):
                pairs.setdefault((row, plain(one.caption)), (sample.images[0], one.caption))
    scores = dict(zip(pairs, score(list(pairs.values())), strict=True)) if pairs else {}
    for (row, words), value in scores.items():
        if not math.isfinite(value):
            raise GuardError(
                f"the filter scores '{words}' for {found[row][0].origin} with {value}; expected a finite number, so "
                "train the filter again with a lower learning rate"
            )
    return {
        row: [replace(one, score=scores.get((row, plain(one.caption)))) for one in candidates]
        for row, (_, candidates) in found.items()
    }
