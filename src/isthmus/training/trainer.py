"""The training loop: one stage, from its first step or from its last checkpoint to its end."""

import contextlib
import logging
import signal
import time
from collections.abc import Mapping
from typing import final

import torch

from isthmus.core.errors import CheckpointError, Stopped
from isthmus.core.protocols import Objective, Progress
from isthmus.core.randomness import seed_of
from isthmus.training.accumulation import SharedLoss
from isthmus.training.audit import TrainingAudit
from isthmus.training.averaging import WeightAverage
from isthmus.training.guards import FiniteGuard, LossWindow
from isthmus.training.optimizer import build_optimizer, set_learning_rate
from isthmus.training.parameters import TrainableModule, TrainableSplit, set_modes
from isthmus.training.settings import Services, StageResult, StageSettings, Stream
from isthmus.training.signals import StopAsked
from isthmus.training.state import TrainingState

_LOG = logging.getLogger(__name__)


@final
class Trainer:
    """Trains the trainable parts of a model for one stage.

    Args:
        model: The model, on its device, its trainable parts chosen by `set_trainable`.
        split: What `set_trainable` gave.
        objectives: The stage's objectives by name, each with its weight.
        stream: Where batches come from.
        settings: Seeds, steps, optimizer.
        services: Validation, log, checkpoints, stop signals.
    """

    def __init__(
        self,
        *,
        model: TrainableModule,
        split: TrainableSplit,
        objectives: Mapping[str, tuple[Objective, float]],
        stream: Stream,
        settings: StageSettings,
        services: Services,
    ) -> None:
        self._model = model
        self._split = split
        self._loss = SharedLoss(
            model=model, objectives=objectives, settings=settings, processes=services.processes
        )
        self._stream = stream
        self._settings = settings
        self._services = services
        self._optimizer = build_optimizer(split, settings.optimizer)
        decay = settings.optimizer.ema
        self._average = None if decay is None else WeightAverage(split.trainable, decay=decay)
        self._state = TrainingState(
            model=model, split=split, optimizer=self._optimizer, average=self._average
        )
        self._finite = FiniteGuard(stage=settings.stage, incidents=services.incidents)
        self._window = LossWindow()
        self._audit: TrainingAudit | None = None
        self._step = 0
        self._validation: dict[str, float] = {}
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def run(self, *, resume: bool = False) -> StageResult:
        """Train to the end of the stage and leave the final weights (the averaged ones, if any) in the model.

        Args:
            resume: Go on from the newest good checkpoint, or from the start where there is none.

        Raises:
            CheckpointError: There is something to resume but `resume` is false, or it does not fit.
            DataError: A step has nothing to learn from.
            GuardError: A loss or gradient is not finite, or the audit failed.
            MachineError: The disk is full.
            Stopped: A signal came; the state was saved.
        """
        must_validate = self._begin(resume)
        is_over = self._is_over()
        if must_validate:
            self._validate()
            self._stop_if_asked()
        set_modes(self._model)
        while not is_over:
            self._train_step()
            is_over = self._is_over()
            if is_over or _is_due(self._step, self._settings.validate_every):
                self._validate()
            if is_over or _is_due(self._step, self._settings.checkpoint_every):
                self._save()
            self._stop_if_asked()
        return self._finish()

    def _train_step(self) -> None:
        """One update: what all micro-batches say, divided by what the whole batch holds."""
        step, started = self._step, time.monotonic()
        progress = Progress(step=step, num_steps=self._settings.num_steps)
        batches = self._stream.micro_batches(step)
        rows = [name for batch in batches for name in batch.sample_ids]
        counts = self._loss.global_counts(batches, step)
        self._optimizer.zero_grad()
        losses = self._loss.backward(
            batches, progress, counts, lambda values, names: self._finite.check_losses(step, values, names)
        )
        losses = self._summed(losses)
        num_rows = len(rows) * self._services.processes.num
        norm = self._clip_gradient()
        self._finite.check_gradient(step, norm, rows, self._split)
        lr = set_learning_rate(
            self._optimizer, self._settings.optimizer.factor(step, self._settings.num_steps)
        )
        if self._audit is not None:
            self._audit.observe(lr)
        self._optimizer.step()
        self._model.after_step(progress)
        if self._average is not None:  # of weights in their bounds, so that the mean is in them too
            self._average.update(step)
        if self._audit is not None:
            self._audit.conclude()
        self._step = step + 1
        self._record(
            losses, counts, lr=lr, gradient_norm=norm, num_rows=num_rows, seconds=time.monotonic() - started
        )

    def _summed(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Losses and gradients of all processes: each has computed its part of both."""
        processes = self._services.processes
        processes.sum_gradients(self._split.trainable.values())
        total = processes.all_sum(torch.tensor(list(losses.values()), dtype=torch.float64))
        return dict(zip(losses, total.tolist(), strict=True))

    def _clip_gradient(self) -> float:
        """The norm of the whole gradient, which is shortened to the clip afterwards."""
        parameters = [p for p in self._split.trainable.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self._settings.optimizer.clip is not None and torch.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(parameters, self._settings.optimizer.clip, norm)
        return float(norm)

    def _record(
        self,
        losses: Mapping[str, float],
        counts: Mapping[str, int],
        *,
        lr: float,
        gradient_norm: float,
        num_rows: int,
        seconds: float,
    ) -> None:
        self._window.add(self._step - 1, losses["loss"])
        if self._services.log is not None:
            self._services.log.write(
                {"kind": "train", "step": self._step, "num_steps": self._settings.num_steps}
                | dict(losses)
                | {f"count.{name}": count for name, count in counts.items()}
                | {"lr": lr, "gradient_norm": gradient_norm, "rows": num_rows}
                | {"seconds": self._seconds(), "rows_per_second": num_rows / max(seconds, 1e-9)}
            )

    def _validate(self) -> None:
        """Validate in evaluation mode on the averaged weights, leaving weights, modes and randomness as they were."""
        if self._services.validate is None:
            return
        device = self._settings.device
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
            stack.enter_context(torch.no_grad())
            if self._average is not None:
                stack.enter_context(self._average.applied())
            stack.callback(set_modes, self._model)
            self._model.eval()
            torch.manual_seed(seed_of(self._settings.seed, self._settings.stage, "validation", self._step))
            try:
                found = dict(self._services.validate(self._step))
            except StopAsked:
                found = None
        if found is None:
            self._save(must_validate=True)
            self._stop_if_asked()
            return
        self._validation = found
        if self._services.log is not None:
            self._services.log.write(
                {"kind": "validation", "step": self._step} | found | {"seconds": self._seconds()}
            )

    def _begin(self, resume: bool) -> bool:
        """Restore the newest checkpoint if there is one; return whether its validation is still to be done."""
        store, log = self._services.checkpoints, self._services.log
        if store is not None and not resume and store.steps():
            raise CheckpointError(
                f"stage {self._settings.stage!r} already has checkpoints (newest: step {store.steps()[-1]}); expected "
                f"none in a new run; go on with --resume or use another directory"
            )
        checkpoint = store.load_latest() if store is not None and resume else None
        self._started = time.monotonic()
        must_validate = checkpoint is not None and bool(checkpoint.state["must_validate"])
        if log is not None:
            log.truncate_after(-1 if checkpoint is None else checkpoint.step, is_validated=not must_validate)
        if checkpoint is not None:
            self._state.restore(checkpoint.tensors)
            self._step = checkpoint.step
            self._window.restore(checkpoint.state["window"])
            self._validation = checkpoint.state["validation"]
            self._seconds_before = checkpoint.state["seconds"]
        self._agree()
        if self._step < self._settings.audit_steps:
            self._audit = TrainingAudit(self._model, self._split, num_steps=self._settings.audit_steps)
        return must_validate

    def _agree(self) -> None:
        """See that all processes start from the same step and the same bits."""
        latest = self._services.processes.any_of(self._step)
        if latest != self._step:
            raise CheckpointError(
                f"process {self._services.processes.rank} would start at step {self._step} and another one at step "
                f"{latest}; all processes of a run have to see the same run directory"
            )
        self._services.processes.copy_from_first(self._state.gather().values())

    def _save(self, *, must_validate: bool = False) -> None:
        if self._services.checkpoints is not None and self._services.processes.rank == 0:
            state = {
                "window": self._window.to_json(),
                "validation": self._validation,
                "seconds": self._seconds(),
                "must_validate": must_validate,
            }
            self._services.checkpoints.save(self._step, self._state.gather(), state)

    def _stop_if_asked(self) -> None:
        stop = self._services.stop
        number = None if stop is None else self._services.processes.any_of(stop.received)
        if number is None:
            return
        self._save()
        kept = (
            "it is saved"
            if self._services.checkpoints is not None
            else "nothing is saved, as no checkpoints are kept"
        )
        raise Stopped(
            number,
            f"stage {self._settings.stage!r} stopped by {signal.Signals(number).name} after step {self._step} of "
            f"{self._settings.num_steps}; {kept}; go on with --resume",
        )

    def _finish(self) -> StageResult:
        if self._average is not None:
            self._average.apply()
        stopped_early = self._step < self._settings.num_steps
        if stopped_early:
            _LOG.warning(
                "stage %r ends after step %d of %d: its cap of %g minutes is reached",
                self._settings.stage,
                self._step,
                self._settings.num_steps,
                self._settings.minutes,
            )
        return StageResult(
            stage=self._settings.stage,
            steps=self._step,
            loss=self._window.mean,
            seconds=self._seconds(),
            stopped_early=stopped_early,
            trainable=self._split.num_trainable,
            validation=self._validation,
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _is_over(self) -> bool:
        minutes = self._settings.minutes
        if minutes is not None and self._step > 0:
            is_late = self._seconds() >= 60 * minutes
            # Clocks differ, but all processes have to end after the same step.
            if self._services.processes.any_of(1 if is_late else None):
                return True
        return self._step >= self._settings.num_steps


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
