"""What a trainer is told and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

import torch

from isthmus.core.batch import Batch
from isthmus.core.devices import Precision
from isthmus.core.errors import RecipeError
from isthmus.training.audit import AUDITED_STEPS
from isthmus.training.checkpoint import CheckpointStore
from isthmus.training.distributed import Alone, Processes
from isthmus.training.metrics import MetricsLog
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.signals import StopSignals


class Stream(Protocol):
    """Where batches come from."""

    def micro_batches(self, step: int) -> list[Batch]:
        """The batches of one step, a pure function of `step`; their gradients add up to one update."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """What decides one stage's weights, and when it looks up from training.

    Attributes:
        stage: Its name; part of every seed.
        seed: The run's seed.
        num_steps: Updates of the stage; the learning-rate schedule spans exactly these.
        optimizer: How weights move.
        device: Where batches go.
        precision: Number format of matrix products.
        validate_every: Steps between validations; the last step always validates. None: only then.
        checkpoint_every: Steps between checkpoints; the last step always saves. None: only then.
        minutes: Wall-clock cap over all sittings. It ends the stage early and does not bend the schedule.
        audit_steps: Steps the gradient audit watches; 0 turns it off.
    """

    stage: str
    seed: int
    num_steps: int
    optimizer: OptimizerSettings
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "auto"
    validate_every: int | None = None
    checkpoint_every: int | None = None
    minutes: float | None = None
    audit_steps: int = AUDITED_STEPS

    def __post_init__(self) -> None:
        for name, value in (
            ("num_steps", self.num_steps),
            ("validate_every", self.validate_every),
            ("checkpoint_every", self.checkpoint_every),
            ("minutes", self.minutes),
        ):
            if value is not None and value <= 0:
                raise RecipeError(f"{name} of stage {self.stage!r} is {value}; expected a number above 0")


@final
@dataclass(frozen=True, kw_only=True)
class Services:
    """What stands around a trainer; every one can be left out.

    Attributes:
        validate: Steps done -> numbers to log, run without gradients, in evaluation mode, on averaged weights if any.
        log: Where records go.
        checkpoints: Where states go; without it nothing is saved.
        stop: Noted stop signals.
        incidents: Where a guard writes what it saw.
        processes: The processes that train together.
    """

    validate: Callable[[int], Mapping[str, float]] | None = None
    log: MetricsLog | None = None
    checkpoints: CheckpointStore | None = None
    stop: StopSignals | None = None
    incidents: Path | None = None
    processes: Processes = field(default_factory=Alone)


@final
@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage ended.

    Attributes:
        stage: Its name.
        steps: Updates done.
        loss: Mean of the last 50 losses.
        seconds: Wall-clock time over all sittings.
        stopped_early: Whether the wall-clock cap ended it.
        trainable: Scalars that learned.
        validation: What the last validation gave.
    """

    stage: str
    steps: int
    loss: float
    seconds: float
    stopped_early: bool
    trainable: int
    validation: Mapping[str, float]
