"""What a person sees while a run works: a bar at a terminal, plain lines elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, Self, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from isthmus.core.options import RunOptions
from isthmus.training.metrics import Record

_SECONDS_BETWEEN_LINES = 10.0


def console_of(options: RunOptions) -> Console:
    """Where progress goes: stdout, or stderr where stdout is for one JSON object."""
    return Console(
        file=sys.stderr if options.json else sys.stdout, highlight=False, soft_wrap=not options.terminal
    )


def announce(description: dict[str, Any], options: RunOptions) -> None:
    """Say what is trained and what is frozen, and let log messages through."""
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", stream=sys.stderr if options.json else sys.stdout
    )
    logging.getLogger("isthmus").setLevel(logging.INFO)
    console = console_of(options)
    console.print(f"{description['recipe']}: {description['total']:,} parameters", markup=False)
    for stage in description["stages"]:
        console.print(
            f"  stage {stage['name']} trains {', '.join(stage['parts'])}: {stage['trainable']:,} trained, "
            f"{stage['frozen']:,} frozen",
            markup=False,
        )


class _Shown:
    """A bar at a terminal, which is drawn while this is entered."""

    def __init__(self, options: RunOptions) -> None:
        self._console = console_of(options)
        self._bar = (
            Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            if options.terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


@final
class Progress(_Shown):
    """A tracker of metrics that draws a bar, or writes a line now and then."""

    def __init__(self, stage: str, options: RunOptions) -> None:
        super().__init__(options)
        self._stage = stage
        self._task: TaskID | None = None
        self._last_line = 0.0

    def __call__(self, record: Record) -> None:
        """Show one record."""
        step = int(record["step"] or 0)
        if record["kind"] == "validation":
            self._say(f"{self._stage} step {step}: {_values(record, 'val.')}")
            return
        total = int(record["num_steps"] or 0)
        values = f"loss {record['loss']:.4g}" if record["loss"] is not None else "loss not finite"
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._stage, total=total, values=values)
            self._bar.update(self._task, completed=step, values=values)
        elif step in (1, total) or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._say(
                f"{self._stage} step {step} of {total}: {values}, {record['rows_per_second']:.0f} rows a second"
            )

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)


@final
class Counter(_Shown):
    """Counts things up to a number that is known, as a bar or as a line now and then."""

    def __init__(self, name: str, total: int, options: RunOptions) -> None:
        super().__init__(options)
        self._name = name
        self._total = total
        self._shown = (0, 0.0)
        self._task = self._bar.add_task(name, total=total, values="") if self._bar is not None else None

    def show(self, count: int, values: str) -> None:
        """Show how many there are."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=count, values=values)
            return
        before, at = self._shown
        if count != before and (count == self._total or time.monotonic() - at >= _SECONDS_BETWEEN_LINES):
            self._shown = (count, time.monotonic())
            said = f"{count:,} of {self._total:,} {self._name}"
            self._console.print(f"{said}, {values}" if values else said, markup=False)


def _values(record: Record, prefix: str) -> str:
    return ", ".join(
        f"{name.removeprefix(prefix)} {value:.4g}"
        for name, value in record.items()
        if name.startswith(prefix) and isinstance(value, float)
    )
