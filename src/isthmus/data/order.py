"""In which order an epoch takes its rows: shuffled, and if asked for in batches of one modality."""

import threading
from collections.abc import Sequence
from typing import final

from isthmus.core.errors import DataError
from isthmus.core.randomness import order_of

OPENING = 4
"""Batches with pictures that open a grouped epoch: the audit of the first steps must see every part learn."""


@final
class RowOrder:
    """The rows of each epoch as a pure function of seed, stage and epoch.

    Args:
        num_rows: Rows of the data set.
        batch_size: Rows a step.
        seed: The run's seed.
        stage: The stage's name.
        with_pictures: For each row whether it has a picture; then every batch has only rows with or only rows without
            (LLaVA-1.5 trains so: text rows are short and need no vision encoder), and rows that do not fill a batch of
            their modality are left out, another few each epoch. None mixes them.

    Attributes:
        steps_per_epoch: Whole batches of an epoch.

    Raises:
        DataError: There are rows of a modality, but fewer than a batch of them, so that they would never be seen.
    """

    def __init__(
        self,
        *,
        num_rows: int,
        batch_size: int,
        seed: int,
        stage: str,
        with_pictures: Sequence[bool] | None = None,
    ) -> None:
        self._num_rows = num_rows
        self._batch_size = batch_size
        self._names = (seed, stage)
        self._with_pictures = with_pictures
        self._known: dict[int, list[int]] = {}
        self._lock = threading.Lock()
        self.steps_per_epoch = num_rows // batch_size
        if with_pictures is not None:
            counts = {kind: sum(one is kind for one in with_pictures) for kind in (True, False)}
            for kind, count in counts.items():
                if 0 < count < batch_size:
                    raise DataError(
                        f"the data set has {count} row(s) {'with' if kind else 'without'} pictures, fewer than one "
                        f"batch of {batch_size}; lower batch_size, or set group_by_modality: false"
                    )
            self.steps_per_epoch = sum(count // batch_size for count in counts.values())

    def __call__(self, epoch: int) -> list[int]:
        """The rows of an epoch; the last two epochs are remembered, which prepared steps may straddle."""
        with self._lock:
            if epoch not in self._known:
                if len(self._known) > 1:
                    self._known.pop(min(self._known))
                order = order_of(self._num_rows, *self._names, epoch).tolist()
                self._known[epoch] = order if self._with_pictures is None else self._grouped(order, epoch)
            return self._known[epoch]

    def is_alike(self, row: int, other: int) -> bool:
        """Whether one row may stand in for the other: of the same modality, where that counts."""
        return self._with_pictures is None or self._with_pictures[row] is self._with_pictures[other]

    def _grouped(self, order: Sequence[int], epoch: int) -> list[int]:
        kinds, size = self._with_pictures, self._batch_size
        assert kinds is not None
        batches: list[list[int]] = []
        for kind in (True, False):
            rows = [row for row in order if kinds[row] is kind]
            batches += [rows[at : at + size] for at in range(0, len(rows) - size + 1, size)]
        mixed = [batches[at] for at in order_of(len(batches), *self._names, epoch, "batches").tolist()]
        opening = [batch for batch in mixed if kinds[batch[0]]][:OPENING]
        rest = [batch for batch in mixed if batch not in opening]
        return [row for batch in (*opening, *rest) for row in batch]
