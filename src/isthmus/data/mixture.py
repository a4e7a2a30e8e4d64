"""Several sources as one: each with a weight and a cap, in an order that is a pure function of seed and index."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import final

from isthmus.core.errors import DataError
from isthmus.core.randomness import order_of, seed_of
from isthmus.data.rows import WORDS_ONLY, RowKind, sample_for, turns_of
from isthmus.data.samples import Sample, Source


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One source of a mixture.

    Attributes:
        source: Its samples.
        weight: How often each sample occurs; 0.5 takes every second one, 2.5 takes each twice and every second a third
            time.
        cap: Most different samples that are taken, drawn by seed; None takes all.
        rows: What its samples are read as. `text_answers` gives conversations without pictures.
        prompt: What is asked beside the pictures of captions.
    """

    source: Source
    weight: float = 1.0
    cap: int | None = None
    rows: RowKind = "conversations"
    prompt: str | None = None


@final
class Mixture(Source):
    """Samples of several sources as conversations, shuffled once, so that any stretch of them is a fair sample.

    Args:
        parts: The sources by name; names stand in front of the samples' own.
        seed: Decides which samples a cap keeps, which caption is taken, and the order.

    Raises:
        DataError: A part gives no sample.
    """

    def __init__(self, parts: Mapping[str, MixturePart], *, seed: int = 0) -> None:
        self._names = tuple(parts)
        self._parts = tuple(parts.values())
        self._seed = seed
        self._kept: list[list[int]] = []
        counts: list[int] = []
        for name, part in parts.items():
            kept = order_of(len(part.source), seed, "mixture", name).tolist()[: part.cap]
            counts.append(round(part.weight * len(kept)))
            self._kept.append(kept)
            if counts[-1] == 0:
                raise DataError(
                    f"the mixture's part '{name}' gives no row: {len(kept)} sample(s) at weight {part.weight:g}; "
                    "raise its weight or leave it out"
                )
        self._ends = list(accumulate(counts))
        self._order = order_of(self._ends[-1], seed, "mixture").tolist()
        listed = ", ".join(f"{name} {count:,}" for name, count in zip(self._names, counts, strict=True))
        self.format = f"mixture ({listed})"

    def __len__(self) -> int:
        return len(self._order)

    def sample(self, index: int) -> Sample:
        """The conversation at `index`.

        Raises:
            BadSample: The sample's own record is damaged.
            DataError: The sample has nothing that can be read as its part says.
        """
        which, number, again = self._place(index)
        name, part = self._names[which], self._parts[which]
        found = sample_for(part.source, number, part.rows)
        choice = seed_of(self._seed, "choice", name, number, again)
        return replace(
            found,
            id=f"{name}/{found.id}" + (f"#{again}" if again else ""),
            turns=turns_of(found, rows=part.rows, choice=choice, prompt=part.prompt),
            images=() if part.rows in WORDS_ONLY else found.images,
        )

    def has_pictures(self, index: int) -> bool:
        """Whether the conversation at `index` is about pictures."""
        which, number, _ = self._place(index)
        part = self._parts[which]
        return part.rows not in WORDS_ONLY and part.source.has_pictures(number)

    def _place(self, index: int) -> tuple[int, int, int]:
        """Which part, which of its samples, and how often that one came before."""
        place = self._order[index]
        which = bisect_right(self._ends, place)
        within = place - (self._ends[which - 1] if which else 0)
        again, at = divmod(within, len(self._kept[which]))
        return which, self._kept[which][at], again
