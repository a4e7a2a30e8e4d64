"""Which captions of a picture are kept: those that a filter takes for its own, or the few most alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["web", "synthetic"]
"""Whether a caption came with its picture or was written for it."""

Reason = Literal["empty", "repeated", "no match", "not among the best"]
"""Why a caption was dropped."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A caption of a picture.

    Attributes:
        origin: Where it is from.
        text: What it says.
    """

    origin: Origin
    text: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a caption.

    Attributes:
        candidate: The caption.
        score: What the filter said: a probability, or a similarity; None where it was not asked.
        dropped: Why it is dropped; None: it is kept.
    """

    candidate: Candidate
    score: float | None = None
    dropped: Reason | None = None

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return self.dropped is None

    def to_json(self) -> dict[str, Any]:
        """For `decisions.jsonl`."""
        return {
            "origin": self.candidate.origin,
            "caption": self.candidate.text,
            "score": self.score,
            "kept": self.kept,
            "dropped": self.dropped,
        }


def candidates(web: Sequence[str], synthetic: Sequence[str]) -> tuple[list[Candidate], list[Decision]]:
    """The captions of one picture that a filter is asked about, and those that need no asking.

    Args:
        web: Captions that came with it.
        synthetic: Captions that were written; one that says what another says is dropped.

    Returns:
        Captions in order, and decisions about empty and repeated ones.
    """
    asked: list[Candidate] = []
    settled: list[Decision] = []
    said: set[str] = set()
    origins: tuple[tuple[Origin, Sequence[str]], ...] = (("web", web), ("synthetic", synthetic))
    for candidate in (
        Candidate(origin=origin, text=text.strip()) for origin, texts in origins for text in texts
    ):
        key = " ".join(candidate.text.lower().split())
        if not key:
            settled.append(Decision(candidate=candidate, dropped="empty"))
        elif key in said:
            settled.append(Decision(candidate=candidate, dropped="repeated"))
        else:
            asked.append(candidate)
        said.add(key)
    return asked, settled


def by_match(asked: Sequence[Candidate], scores: Sequence[float], *, least: float) -> list[Decision]:
    """Keep what the filter takes for the picture's own (Li et al., 2022, section 3.3).

    Args:
        asked: Captions of one picture.
        scores: The probability that each belongs to the picture.
        least: The least probability that is kept.
    """
    return [
        Decision(candidate=one, score=score, dropped=None if score >= least else "no match")
        for one, score in zip(asked, scores, strict=True)
    ]


def by_rank(asked: Sequence[Candidate], scores: Sequence[float], *, most: int) -> list[Decision]:
    """Keep the captions most like the picture; of equal ones the first (BLIP-2: Li et al., 2023, section 3.4).

    Args:
        asked: Captions of one picture.
        scores: How alike each is to the picture.
        most: How many are kept.
    """
    order = sorted(range(len(asked)), key=lambda at: -scores[at])
    best = set(order[:most])
    return [
        Decision(candidate=one, score=score, dropped=None if at in best else "not among the best")
        for at, (one, score) in enumerate(zip(asked, scores, strict=True))
    ]
