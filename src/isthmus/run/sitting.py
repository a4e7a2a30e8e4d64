"""One call of `isthmus train`: alone or one of the processes that `torchrun` started."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, final

from isthmus.build.stages import stream_options
from isthmus.build.workshop import Workshop
from isthmus.config.stages import TrainStage
from isthmus.core.options import RunOptions
from isthmus.data.stream import BatchStream
from isthmus.run.progress import Progress
from isthmus.run.validation import Validation
from isthmus.training.checkpoint import CheckpointIdentity, CheckpointStore
from isthmus.training.distributed import Processes
from isthmus.training.metrics import MetricsLog
from isthmus.training.settings import Services
from isthmus.training.signals import StopSignals


@final
@dataclass(frozen=True, kw_only=True)
class Sitting:
    """What stands around the stages of a run.

    Attributes:
        resume: Whether checkpoints are gone on from.
        options: Device, precision, how to report.
        stop: Noted stop signals.
        processes: The processes that train together.
    """

    resume: bool
    options: RunOptions
    stop: StopSignals
    processes: Processes

    @property
    def writes(self) -> bool:
        """Whether this process validates, reports and writes files; exactly one of a run does."""
        return self.processes.rank == 0

    def stream(self, workshop: Workshop, stage: TrainStage) -> BatchStream:
        """This process's rows of every step."""
        return BatchStream(
            processor=workshop.processor_of(stage),
            source=workshop.source(stage.data),
            options=stream_options(
                workshop.recipe, stage, rank=self.processes.rank, num_ranks=self.processes.num
            ),
        )

    def services(
        self,
        workshop: Workshop,
        stage: TrainStage,
        *,
        folder: Path,
        identity: CheckpointIdentity,
        progress: Progress,
    ) -> Services:
        """What stands around the trainer of a stage."""
        return Services(
            validate=Validation.of(stage, workshop, self.stop) if self.writes else None,
            log=MetricsLog(folder / "metrics.jsonl", trackers=[progress]) if self.writes else None,
            checkpoints=CheckpointStore(folder / "checkpoints", identity=identity),
            stop=self.stop,
            incidents=folder if self.writes else folder / f"process-{self.processes.rank}",
            processes=self.processes,
        )

    @contextlib.contextmanager
    def in_silence(self) -> Iterator[Self]:
        """The same without a word on stdout, for processes that do not write."""
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield replace(self, options=replace(self.options, json=False, terminal=False))
