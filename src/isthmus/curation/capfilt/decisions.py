"""Which captions of a picture are kept: by a bound on each score, or by rank among the picture's captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

Origin = Literal["web", "synthetic"]
"""Whether a caption came with its picture or was written by the captioner."""

EMPTY = "empty"
REPEATS = "repeats another caption"
BELOW = "below the threshold"
NOT_BEST = "not among the best"


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A caption that may be kept; its score is None where there is nothing to score."""

    caption: str
    origin: Origin
    score: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a candidate; `reason` says why it was dropped and is empty where it was kept."""

    candidate: Candidate
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the new data set has it."""
        return not self.reason


@final
@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is kept of a picture's captions.

    Attributes:
        threshold: The least score; None asks for none. BLIP keeps what the match head calls a match (section 3.3).
        best: How many of the highest scores stay; None keeps all. BLIP-2 keeps two (section 3.4).
    """

    threshold: float | None = None
    best: int | None = None


def plain(caption: str) -> str:
    """What two captions are compared by: without case, outer space and a full stop at the end."""
    return " ".join(caption.lower().split()).removesuffix(".").rstrip()


def candidates_of(web: Sequence[str], synthetic: Sequence[str]) -> list[Candidate]:
    """All captions of a picture, those that came with it first."""
    return [Candidate(caption=caption, origin="web") for caption in web] + [
        Candidate(caption=caption, origin="synthetic") for caption in synthetic
    ]


def decide(candidates: Sequence[Candidate], rule: Rule) -> list[Decision]:
    """Keep or drop each caption of one picture; of equal scores the earlier caption is the better one.

    A caption that says what an earlier one says is dropped, so that no picture counts twice.
    """
    reasons: list[str] = []
    seen: set[str] = set()
    for candidate in candidates:
        words = plain(candidate.caption)
        if not words or candidate.score is None:
            reasons.append(EMPTY)
        elif words in seen:
            reasons.append(REPEATS)
        elif rule.threshold is not None and candidate.score < rule.threshold:
            reasons.append(BELOW)
        else:
            reasons.append("")
        seen.add(words)
    if rule.best is not None:
        left = [index for index, reason in enumerate(reasons) if not reason]
        ranked = sorted(left, key=lambda index: (-(candidates[index].score or 0.0), index))
        for index in ranked[rule.best :]:
            reasons[index] = NOT_BEST
    return [
        Decision(candidate=candidate, reason=reason)
        for candidate, reason in zip(candidates, reasons, strict=True)
    ]
