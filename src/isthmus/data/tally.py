"""Counting what a stream gave, cut off and skipped, so that nothing happens silently."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from isthmus.core.batch import IGNORED
from isthmus.core.errors import DataError
from isthmus.data.processor import Row

BAD_FRACTION = 0.01
NUM_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """What a stream gave so far in this process (a resumed run counts from where it resumed).

    Attributes:
        rows: Rows given.
        skipped: Different samples that could not be used.
        named: Why, for the first 20 of them, in the order in which they were met.
        truncated_fraction: Share of rows whose text was cut off at the end of the context.
        supervised_fraction: Share of text tokens and placeholders that carry loss.
        num_tokens: Tokens given, padding left out.
    """

    rows: int
    skipped: int
    named: tuple[str, ...]
    truncated_fraction: float
    supervised_fraction: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Met:
    """What making some rows met: the rows, and the bad samples on the way as (sample index, reason)."""

    rows: Sequence[Row]
    bad: Sequence[tuple[int, str]] = field(default=())


def allowed_bad(num_samples: int) -> int:
    """How many bad samples a data set may hold: 1%, rounded down, but one in any case."""
    return max(1, int(num_samples * BAD_FRACTION))


@final
class Tally:
    """Adds up rows and bad samples.

    Args:
        num_samples: Samples of the data set; more than 1% bad ones stop the run (a single one never does).
        format: What the data set is, for messages.
    """

    def __init__(self, *, num_samples: int, format: str) -> None:
        self.num_samples = num_samples
        self.format = format
        self._bad: dict[int, str] = {}
        self._rows = self._truncated = self._tokens = self._supervised = 0

    def add(self, met: Met) -> None:
        """Count some rows.

        Raises:
            DataError: More than 1% of the data set is bad; the first are named.
        """
        for row in met.rows:
            self._rows += 1
            self._truncated += row.truncated
            self._tokens += len(row.token_ids or ()) + len(row.decoder_ids or ())
            self._supervised += sum(target != IGNORED for target in (row.targets or ())[1:])
        for index, reason in met.bad:
            self._bad.setdefault(index, reason)
        if len(self._bad) > allowed_bad(self.num_samples):
            raise DataError(too_many(list(self._bad.values()), self.num_samples, self.format))

    def report(self) -> StreamReport:
        """The counts so far."""
        return StreamReport(
            rows=self._rows,
            skipped=len(self._bad),
            named=tuple(self._bad.values())[:NUM_NAMED],
            truncated_fraction=self._truncated / max(self._rows, 1),
            supervised_fraction=self._supervised / max(self._tokens, 1),
            num_tokens=self._tokens,
        )


def too_many(reasons: Sequence[str], num_samples: int, format: str) -> str:
    """The sentence that says that a data set is too bad to go on."""
    first = "; ".join(reasons[:3])
    return (
        f"{len(reasons)} of {num_samples:,} samples ({format}) cannot be used, "
        f"but at most {allowed_bad(num_samples)} may be skipped (1%, or one): {first}; mend or remove them"
    )
