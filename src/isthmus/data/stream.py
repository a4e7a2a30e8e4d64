"""The batches of a training run: which rows each step sees is a pure function of seed and step."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, final

from isthmus.core.batch import Batch
from isthmus.core.errors import DataError, UsageError
from isthmus.core.randomness import generator_of, seed_of
from isthmus.data.collate import collate
from isthmus.data.masking import random_kept
from isthmus.data.order import RowOrder
from isthmus.data.pictures import BadSample
from isthmus.data.processor import Processor, Row
from isthmus.data.repeats import warn_of_repeats
from isthmus.data.rows import WORDS_ONLY, CaptionUse, RowIndex, RowKind, sample_for
from isthmus.data.samples import Sample, Source
from isthmus.data.tally import Met, StreamReport, Tally, allowed_bad, too_many
from isthmus.data.views import Augmentation, ViewedImage, view_of


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream is cut into steps.

    Attributes:
        rows: What samples are read as.
        batch_size: Rows a step.
        micro_batch_size: Rows a forward pass; None takes all rows of a process at once.
        captions: `one` caption of each sample an epoch, or `all`.
        seed: The run's seed.
        stage: The stage's name: stages with one seed see different orders.
        group_by_modality: Every step has only rows with pictures, or only rows without.
        num_patches: Patches of a picture, for `patches_kept`.
        patches_kept: Share of the patches that the vision encoder sees; each row draws its own. None: all.
        whole: Share of `regions` rows that are read as `captions` instead; each place of an epoch draws its own.
        compares: The loss compares every picture with all texts of a step; then repeated texts are told of.
        augmentation: Which views of pictures are drawn, anew for each row; None: pictures as they are.
        workers: Threads that prepare later steps; 0 prepares each step when it is asked for.
        rank: Which of several processes this is; each gives its own part of the rows of every step.
        num_ranks: How many processes there are.
    """

    rows: RowKind
    batch_size: int
    micro_batch_size: int | None = None
    captions: CaptionUse = "one"
    seed: int = 0
    stage: str = ""
    group_by_modality: bool = False
    num_patches: int = 0
    patches_kept: float | None = None
    whole: float = 0.0
    compares: bool = False
    augmentation: Augmentation | None = None
    workers: int = 1
    rank: int = 0
    num_ranks: int = 1


@final
class BatchStream:
    """Endless training batches, prepared ahead by threads; use it as a context manager or close it.

    An epoch is every row once in an order of its own; the rows that do not fill a last batch are left out (another few
    each epoch). A sample that cannot be used is replaced by the one half an epoch further in the order (where batches
    are grouped, by the next one of its modality), so that batches keep their size and nothing depends on when a step is
    prepared; it is counted and named, and above 1% of the data set it stops the run.

    Args:
        processor: Makes rows.
        source: The samples.
        options: How they are cut into steps.

    Raises:
        DataError: The source is empty or smaller than a batch.
        UsageError: A size is not positive, or processes cannot share a batch evenly.
    """

    def __init__(self, *, processor: Processor, source: Source, options: StreamOptions) -> None:
        micro = options.micro_batch_size if options.micro_batch_size is not None else options.batch_size
        if options.batch_size < 1 or micro < 1:
            raise UsageError(
                f"batch_size {options.batch_size} and micro_batch_size {micro} must be at least 1"
            )
        if options.batch_size % options.num_ranks:
            raise UsageError(
                f"batch_size {options.batch_size} cannot be shared by {options.num_ranks} processes; "
                "expected a number of processes that divides it"
            )
        self.processor = processor
        self.source = source
        self.options = options
        self.index = RowIndex(source, captions=options.captions, seed=options.seed)
        kinds = _with_pictures(source, self.index, options.rows) if options.group_by_modality else None
        self._order = RowOrder(
            num_rows=len(self.index),
            batch_size=options.batch_size,
            seed=options.seed,
            stage=options.stage,
            with_pictures=kinds,
        )
        self.steps_per_epoch = self._order.steps_per_epoch
        if self.steps_per_epoch == 0:
            raise DataError(
                f"the data set has {len(self.index)} rows ({source.format}), "
                f"fewer than one batch of {options.batch_size}; "
                "lower batch_size"
            )
        self._micro = micro
        self._tally = Tally(num_samples=len(source), format=source.format)
        self._ahead: dict[int, Future[tuple[list[Batch], Met]]] = {}
        self._pool = ThreadPoolExecutor(options.workers, "isthmus-data") if options.workers else None
        self._counted: set[int] = set()

    def micro_batches(self, step: int) -> list[Batch]:
        """The forward passes of one step, counted from 0 over the whole stage; any step may be asked for at any time.

        Raises:
            DataError: More than 1% of the samples are bad, or a row does not fit the model.
        """
        if self._pool is None:
            batches, met = self._prepare(step)
        else:
            batches, met = self._fetch(self._pool, step)
        if self.options.compares and not self._counted:
            warn_of_repeats(batches, stage=self.options.stage)
        if step not in self._counted:
            self._counted.add(step)
            self._tally.add(met)
        return batches

    def report(self) -> StreamReport:
        """What was given, cut off and skipped so far."""
        return self._tally.report()

    def close(self) -> None:
        """End the threads; steps that were prepared ahead are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[Batch]]:
        """The steps of the first epoch."""
        return (self.micro_batches(step) for step in range(self.steps_per_epoch))

    def _fetch(self, pool: ThreadPoolExecutor, step: int) -> tuple[list[Batch], Met]:
        wanted = range(step, step + self.options.workers + 1)
        for other in [other for other in self._ahead if other not in wanted]:
            self._ahead.pop(other).cancel()
        for number in wanted:
            if number not in self._ahead:
                self._ahead[number] = pool.submit(self._prepare, number)
        return self._ahead.pop(step).result()

    def _prepare(self, step: int) -> tuple[list[Batch], Met]:
        epoch, within = divmod(step, self.steps_per_epoch)
        each = self.options.batch_size // self.options.num_ranks
        first = within * self.options.batch_size + self.options.rank * each
        rows: list[Row] = []
        bad: list[tuple[int, str]] = []
        for place in range(first, first + each):
            rows.append(self._with_patches(self._row(epoch, place, bad), epoch, place))
        parts = [rows[at : at + self._micro] for at in range(0, len(rows), self._micro)]
        return [collate(part, pad_id=self.processor.pad_id) for part in parts], Met(rows=rows, bad=bad)

    def _with_patches(self, row: Row, epoch: int, place: int) -> Row:
        """The row with the patches that are seen of its picture, drawn by run, stage, epoch and place in the epoch."""
        chosen = self.options
        if chosen.patches_kept is None:
            return row
        generator = generator_of(chosen.seed, "kept", chosen.stage, epoch, place)
        return replace(row, kept=random_kept(chosen.num_patches, chosen.patches_kept, generator))

    def _viewed(self, sample: Sample, epoch: int, place: int) -> Sample:
        """The sample with its first picture seen in part, where the stage draws views."""
        chosen = self.options
        if chosen.augmentation is None or not sample.images:
            return sample
        view = view_of(chosen.augmentation, generator_of(chosen.seed, "view", chosen.stage, epoch, place))
        first, *others = sample.images
        return replace(sample, images=(ViewedImage(first, view, name=first.name), *others))

    def _kind(self, epoch: int, place: int) -> RowKind:
        chosen = self.options
        drawn = seed_of(chosen.seed, "whole", chosen.stage, epoch, place) / 2**63
        return "captions" if chosen.rows == "regions" and drawn < chosen.whole else chosen.rows

    def _row(self, epoch: int, place: int, bad: list[tuple[int, str]]) -> Row:
        order = self._order(epoch)
        rows = self._kind(epoch, place)
        met: dict[int, str] = {}
        offset = len(order) // 2
        for attempt in range(len(order)):
            where = place if attempt == 0 else (place + offset + attempt - 1) % len(order)
            if not self._order.is_alike(order[where], order[place]):
                continue
            number, choice = self.index(order[where], epoch)
            try:
                sample = self._viewed(sample_for(self.source, number, rows), epoch, place)
                row = self.processor.row(sample, rows=rows, choice=choice)
            except BadSample as error:
                met[number] = str(error)
                bad.append((number, str(error)))
                if len(met) > allowed_bad(len(self.source)):
                    break
            else:
                return row
        raise DataError(too_many(list(met.values()), len(self.source), self.source.format))


def _with_pictures(source: Source, index: RowIndex, rows: RowKind) -> list[bool]:
    """Which rows have pictures; a damaged sample counts as one that has, and is met when its turn comes."""

    def has(row: int) -> bool:
        try:
            return rows not in WORDS_ONLY and source.has_pictures(index(row, 0)[0])
        except BadSample:
            return True

    return [has(row) for row in range(len(index))]
