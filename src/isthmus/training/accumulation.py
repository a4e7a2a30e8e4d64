"""Losses of micro-batches that add up to the loss of the whole batch."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.devices import number_format
from isthmus.core.errors import DataError
from isthmus.core.protocols import Encoded, Objective, Progress, TrainableModel
from isthmus.core.randomness import seed_of
from isthmus.objectives.representations import Compares, Representations
from isthmus.training.cached_gradients import VectorGradients, cached_gradients
from isthmus.training.distributed import Processes
from isthmus.training.settings import StageSettings

Check = Callable[[Mapping[str, float], Sequence[str]], None]
"""Looks at the losses of some rows, and raises where they cannot be trained on."""


@final
class SharedLoss:
    """The weighted objectives of a stage, each divided by its count over the whole batch.

    A mean of means would weigh rows of a short micro-batch more. Here each micro-batch gives the *sum* of its items
    divided by the number of items in all micro-batches of all processes, so gradients add up to the whole batch's. An
    objective whose items see one another (contrastive ones) sees the vectors of all micro-batches of all processes:
    several micro-batches are run twice for it, see `cached_gradients`.
    """

    def __init__(
        self,
        *,
        model: TrainableModel,
        objectives: Mapping[str, tuple[Objective, float]],
        settings: StageSettings,
        processes: Processes,
    ) -> None:
        self._model = model
        self._objectives = objectives
        self._comparing = {
            name: (objective, weight)
            for name, (objective, weight) in objectives.items()
            if isinstance(objective, Compares)
        }
        self._settings = settings
        self._processes = processes

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
        totals = self._processes.all_sum(torch.tensor(list(counts.values()), dtype=torch.float64)).tolist()
        for name, total in zip(counts, totals, strict=True):
            if total == 0:
                rows = [row for batch in batches for row in batch.sample_ids]
                raise DataError(
                    f"step {step} of stage {self._settings.stage!r} has nothing to learn for {name!r}: its {len(rows)} "
                    f"rows ({', '.join(rows[:8])}) hold 0 supervised items; expected at least one; check the rows, the "
                    f"template and the context length"
                )
        return {name: int(total) for name, total in zip(counts, totals, strict=True)}

    def backward(
        self, batches: Sequence[Batch], progress: Progress, counts: Mapping[str, int], check: Check
    ) -> dict[str, float]:
        """Add this process's part of the gradient of one step to the parameters.

        Returns:
            This process's part of each named loss, and of `loss`, their weighted sum.
        """
        cached: dict[str, list[VectorGradients]] = {}
        losses: Counter[str] = Counter({"loss": 0.0})
        if self._comparing and len(batches) > 1:
            cached, compared = self._compare(batches, progress.step)
            check(compared, [row for batch in batches for row in batch.sample_ids])
            losses.update(compared)
        for place, batch in enumerate(batches):
            moved = self._prepare(batch, progress.step, place, len(batches))
            with number_format(self._settings.device, self._settings.precision):
                encoded = self._model.encode(moved)
                share, values = self._share_of(encoded, moved, progress, counts, known=cached)
            check(values, batch.sample_ids)
            losses.update(values)
            roots = [(share, torch.ones_like(share))] if share.requires_grad else []
            for name, gradients in cached.items():
                compare, _ = self._comparing[name]
                roots += gradients[place].roots(compare.representations(encoded, moved))
            if roots:
                torch.autograd.backward([tensor for tensor, _ in roots], [gradient for _, gradient in roots])
        return dict(losses)

    def _compare(
        self, batches: Sequence[Batch], step: int
    ) -> tuple[dict[str, list[VectorGradients]], dict[str, float]]:
        """The first of two passes: for each comparing objective its loss and the gradients of all vectors."""
        parts: dict[str, list[Representations]] = {name: [] for name in self._comparing}
        for place, batch in enumerate(batches):
            moved = self._prepare(batch, step, place, len(batches))
            with torch.no_grad(), number_format(self._settings.device, self._settings.precision):
                encoded = self._model.encode(moved)
                for name, (compare, _) in self._comparing.items():
                    parts[name].append(compare.representations(encoded, moved))
        found, values = {}, {"loss": 0.0}
        for name, (compare, weight) in self._comparing.items():
            weighted, found[name] = cached_gradients(
                parts[name], lambda every, c=compare, w=weight: self._compared(c, every) * w
            )
            (term,) = compare.counts(batches[0])
            values[_name(name, term)] = weighted / weight
            values["loss"] += weighted
        return found, values

    def _compared(self, objective: Compares, representations: Representations) -> Float[Tensor, ""]:
        with number_format(self._settings.device, self._settings.precision):
            return self._processes.share(objective, representations)

    def _prepare(self, batch: Batch, step: int, place: int, num_batches: int) -> Batch:
        """Move a micro-batch to the device and seed what is random in its forward pass.

        Seeds are names, so a second pass over the micro-batch drops the same units as the first.
        """
        number = self._processes.rank * num_batches + place
        names = (self._settings.seed, self._settings.stage, step, *((number,) if number else ()))
        torch.manual_seed(seed_of(*names))
        return batch.to(self._settings.device)

    def _share_of(
        self,
        encoded: Encoded,
        batch: Batch,
        progress: Progress,
        counts: Mapping[str, int],
        *,
        known: Mapping[str, list[VectorGradients]],
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """One micro-batch's share of the losses that are not `known` already, and of each of them by name."""
        shares, values = [torch.zeros((), device=self._settings.device)], {"loss": 0.0}
        for objective, (compute, weight) in self._objectives.items():
            if objective in known:
                continue
            if isinstance(compute, Compares):
                (term,) = compute.counts(batch)
                found = {term: self._processes.share(compute, compute.representations(encoded, batch))}
            else:
                found = {
                    term: value.sum / counts[_name(objective, term)]
                    for term, value in compute(encoded, batch, progress).items()
                }
            for term, share in found.items():
                name = _name(objective, term)
                shares.append(weight * share)
                values[name] = share.item()
                values["loss"] += weight * values[name]
        return torch.stack(shares).sum(), values


def _name(objective: str, term: str) -> str:
    return term if term == objective else f"{objective}.{term}"
