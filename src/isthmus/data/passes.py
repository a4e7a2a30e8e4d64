"""One pass over a data set in its own order, for validation, evaluation and storing features."""

from collections.abc import Iterator
from typing import final

from isthmus.core.batch import Batch
from isthmus.core.errors import DataError
from isthmus.data.collate import Side, collate
from isthmus.data.pictures import BadSample
from isthmus.data.processor import Processor, Purpose, Row
from isthmus.data.rows import RowKind, sample_for
from isthmus.data.samples import Sample, Source
from isthmus.data.tally import Met, StreamReport, Tally


@final
class Pass:
    """Batches in the source's order, the last one smaller, each with its samples; every iteration is a new pass.

    A sample that cannot be used is left out, counted and named; above 1% of those in the pass it stops.

    Args:
        source: The samples.
        processor: Makes rows.
        rows: What samples are read as.
        batch_size: Rows a batch.
        limit: Most samples; None takes all.
        purpose: `prompt` gives what comes before the answer, filled up on the left, for generation; `training` gives
            whole rows with targets, filled up on the right, for losses (the first caption of each sample).
    """

    def __init__(
        self,
        source: Source,
        processor: Processor,
        *,
        rows: RowKind,
        batch_size: int,
        limit: int | None = None,
        purpose: Purpose = "prompt",
    ) -> None:
        if len(source) == 0:
            raise DataError(f"the data set is empty ({source.format}); expected at least one sample")
        self.source = source
        self.processor = processor
        self.rows: RowKind = rows
        self.batch_size = batch_size
        self.purpose: Purpose = purpose
        self.num_samples = len(source) if limit is None else min(limit, len(source))
        self._tally = Tally(num_samples=self.num_samples, format=source.format)

    def __len__(self) -> int:
        """Batches of a pass in which every sample can be used."""
        return (self.num_samples + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Batch, tuple[Sample, ...]]]:
        self._tally = Tally(num_samples=self.num_samples, format=self.source.format)
        made: list[tuple[Row, Sample]] = []
        for index in range(self.num_samples):
            try:
                sample = sample_for(self.source, index, self.rows)
                row = self.processor.row(sample, rows=self.rows, choice=0, purpose=self.purpose)
            except BadSample as error:
                self._tally.add(Met(rows=(), bad=((index, str(error)),)))
                continue
            self._tally.add(Met(rows=(row,)))
            made.append((row, sample))
            if len(made) == self.batch_size:
                yield self._batch(made)
                made = []
        if made:
            yield self._batch(made)

    def report(self) -> StreamReport:
        """What the latest pass gave, cut off and left out."""
        return self._tally.report()

    def _batch(self, made: list[tuple[Row, Sample]]) -> tuple[Batch, tuple[Sample, ...]]:
        side: Side = "left" if self.purpose == "prompt" else "right"
        batch = collate([row for row, _ in made], pad_id=self.processor.pad_id, side=side)
        return batch, tuple(sample for _, sample in made)
