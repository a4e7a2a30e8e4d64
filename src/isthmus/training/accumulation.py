"""Losses of micro-batches that add up to the loss of the whole batch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.devices import number_format
from isthmus.core.errors import DataError
from isthmus.core.protocols import Objective, Progress, TrainableModel
from isthmus.training.settings import AllSum, StageSettings


@final
class SharedLoss:
    """The weighted objectives of a stage, each divided by its count over the whole batch.

    A mean of means would weigh rows of a short micro-batch more. Here each micro-batch gives the *sum* of its items
    divided by the number of items in all micro-batches of all processes, so gradients add up to the whole batch's. This
    holds for objectives whose items do not see one another (next token), not for contrastive ones.
    """

    def __init__(
        self,
        *,
        model: TrainableModel,
        objectives: Mapping[str, tuple[Objective, float]],
        settings: StageSettings,
        all_sum: AllSum,
    ) -> None:
        self._model = model
        self._objectives = objectives
        self._settings = settings
        self._all_sum = all_sum

    def global_counts(self, batches: Sequence[Batch], step: int) -> dict[str, int]:
        """What each named loss is divided by: its count over all micro-batches of all processes.

        Raises:
            DataError: A count is 0, so there is nothing to learn from.
        """
        counts: Counter[str] = Counter()
        for batch in batches:
            for objective, (compute, _) in self._objectives.items():
                counts.update(
                    {_name(objective, term): count for term, count in compute.counts(batch).items()}
                )
        totals = self._all_sum(torch.tensor(list(counts.values()), dtype=torch.float64)).tolist()
        for name, total in zip(counts, totals, strict=True):
            if total == 0:
                rows = [row for batch in batches for row in batch.sample_ids]
                raise DataError(
                    f"step {step} of stage {self._settings.stage!r} has nothing to learn for {name!r}: its {len(rows)} "
                    f"rows ({', '.join(rows[:8])}) hold 0 supervised items; expected at least one; check the rows, the "
                    f"template and the context length"
                )
        return {name: int(total) for name, total in zip(counts, totals, strict=True)}

    def share_of(
        self, batch: Batch, progress: Progress, counts: Mapping[str, int]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """One micro-batch's share of the loss, and of each named loss (`loss` is their weighted sum)."""
        shares, values = [], {"loss": 0.0}
        with number_format(self._settings.device, self._settings.precision):
            encoded = self._model.encode(batch)
            for objective, (compute, weight) in self._objectives.items():
                for term, found in compute(encoded, batch, progress).items():
                    name = _name(objective, term)
                    share = found.sum / counts[name]
                    shares.append(weight * share)
                    values[name] = share.item()
                    values["loss"] += weight * values[name]
        return torch.stack(shares).sum(), values


def _name(objective: str, term: str) -> str:
    return term if term == objective else f"{objective}.{term}"
