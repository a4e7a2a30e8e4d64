"""Guards that stop a run before a broken update, or warn about a strange one."""

import json
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, final

import torch

from isthmus.core.errors import GuardError
from isthmus.training.parameters import TrainableSplit

_LOG = logging.getLogger(__name__)
_NAMED_ROWS = 8


@final
class FiniteGuard:
    """Stops the run, before the update, when a loss or a gradient is not finite.

    Args:
        stage: Named in messages.
        incidents: Where `incident-<step>.json` goes, or None to write none.
    """

    def __init__(self, *, stage: str, incidents: Path | None) -> None:
        self._stage = stage
        self._incidents = incidents

    def check_losses(self, step: int, losses: Mapping[str, float], rows: Sequence[str]) -> None:
        """Raise GuardError unless every loss of one micro-batch is finite."""
        bad = {name: value for name, value in losses.items() if not math.isfinite(value)}
        if bad:
            found = ", ".join(f"{name} = {value}" for name, value in bad.items())
            self._stop(step, f"the loss is not finite ({found})", rows, dict(losses))

    def check_gradient(self, step: int, norm: float, rows: Sequence[str], split: TrainableSplit) -> None:
        """Raise GuardError unless the norm of the whole gradient is finite."""
        if not math.isfinite(norm):
            norms = gradient_norms(split)
            bad = (
                ", ".join(part for part, value in norms.items() if not math.isfinite(value))
                or "all parts together"
            )
            self._stop(step, f"the gradient is not finite (in {bad})", rows, norms)

    def _stop(self, step: int, what: str, rows: Sequence[str], values: Mapping[str, float]) -> NoReturn:
        written = ""
        if self._incidents is not None:
            path = self._incidents / f"incident-{step}.json"
            self._incidents.mkdir(parents=True, exist_ok=True)
            incident = {
                "stage": self._stage,
                "step": step,
                "what": what,
                "sample_ids": list(rows),
                "values": {name: repr(value) for name, value in values.items()},
            }
            path.write_text(json.dumps(incident, indent=1), encoding="utf-8")
            written = f"; details are in {path}"
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        raise GuardError(
            f"stage {self._stage!r}, step {step}: {what} on rows {', '.join(rows[:_NAMED_ROWS])}{more}; expected "
            f"finite numbers; the weights were not updated{written}; look at these rows, or lower the learning rate"
        )


def gradient_norms(split: TrainableSplit) -> dict[str, float]:
    """The norm of the gradient of each trained part."""
    norms = {}
    for part in split.trained_parts:
        gradients = [
            p.grad
            for name, p in split.trainable.items()
            if split.part_of[name] == part and p.grad is not None
        ]
        norms[part] = float(torch.nn.utils.get_total_norm(gradients))
    return norms


@final
class LossWindow:
    """The last losses: their mean, and one warning when a loss jumps far out of them.

    Args:
        size: How many losses are remembered.
        sigmas: How many standard deviations above the mean count as a jump.
        least: How far above the mean a jump is at least, in units of the loss: where nearly nothing is left to learn,
            one odd batch is many deviations away.
    """

    def __init__(self, *, size: int = 50, sigmas: float = 6.0, least: float = 0.1) -> None:
        self._losses: deque[float] = deque(maxlen=size)
        self._sigmas = sigmas
        self._least = least
        self._has_warned = False

    def add(self, step: int, loss: float) -> bool:
        """Take in a loss; True when it is the first jump of the stage (at least 20 losses are needed to judge)."""
        jumped = False
        if len(self._losses) >= 20 and not self._has_warned:
            mean = self.mean
            deviation = math.sqrt(sum((value - mean) ** 2 for value in self._losses) / len(self._losses))
            jumped = loss > mean + max(self._sigmas * deviation, self._least)
        if jumped:
            self._has_warned = True
            _LOG.warning(
                "step %d: the loss jumped to %.4g from a mean of %.4g; training goes on, later jumps are not reported",
                step,
                loss,
                self.mean,
            )
        self._losses.append(loss)
        return jumped

    @property
    def mean(self) -> float:
        """Mean of the remembered losses; not a number before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else math.nan

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of this window."""
        return {"losses": list(self._losses), "has_warned": self._has_warned}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_json` gave."""
        self._losses = deque(saved["losses"], maxlen=self._losses.maxlen)
        self._has_warned = saved["has_warned"]
