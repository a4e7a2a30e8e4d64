"""What a run writes down while it trains: one JSON object a line, and whoever else wants to hear it."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

from isthmus.core.errors import MachineError
from isthmus.core.files import replacing

_LOG = logging.getLogger(__name__)

Record = Mapping[str, float | int | str | None]
Tracker = Callable[[Record], None]

TIMINGS = frozenset({"seconds", "rows_per_second"})
"""Keys of a record that depend on the clock; everything else is the same in every run of one recipe on one machine."""


@final
class MetricsLog:
    """Appends records to a JSONL file, flushed line by line, and passes them on to trackers.

    Every record holds `step` (steps done) and `kind` (`train` or `validation`). A number that is not finite becomes
    null. A tracker that raises is dropped with one warning: tracking never stops a run.

    Args:
        path: The file; made where it is missing.
        trackers: Who else gets each record, for example a progress bar or `tensorboard_tracker`.
    """

    def __init__(self, path: Path, trackers: Sequence[Tracker] = ()) -> None:
        self._path = path
        self._trackers = list(trackers)
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        """Append one record.

        Raises:
            MachineError: The file cannot be written.
        """
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite, allow_nan=False) + "\n")
        except OSError as error:
            raise MachineError(
                f"{self._path} cannot be written ({error.strerror}); earlier lines and checkpoints are intact; "
                f"mend this and go on with --resume"
            ) from error
        for tracker in list(self._trackers):
            try:
                tracker(finite)
            except Exception as error:  # noqa: BLE001
                self._trackers.remove(tracker)
                _LOG.warning(
                    "a tracker failed (%s: %s) and is left out from here on", type(error).__name__, error
                )

    def truncate_after(self, step: int, *, is_validated: bool = True) -> None:
        """Make the log what it was when the checkpoint of `step` was saved, also where a crash cut a line short.

        Args:
            step: Records of later steps are dropped.
            is_validated: Whether the checkpoint came after the validation of `step`; if not, its record is dropped too.

        Raises:
            MachineError: The disk refuses.
        """
        if not self._path.exists():
            return
        kept = [
            line
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            if _is_kept(line, step, is_validated)
        ]
        with replacing(self._path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in kept)


def tensorboard_tracker(directory: Path) -> Tracker:
    """A tracker that writes every number to TensorBoard, under `<kind>/<key>`.

    Raises:
        MachineError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MachineError(
            "TensorBoard is asked for but not installed; run `pip install tensorboard`"
        ) from error
    writer = SummaryWriter(str(directory))

    def write(record: Record) -> None:
        step = record["step"]
        for key, value in record.items():
            if key != "step" and isinstance(value, (int, float)):
                writer.add_scalar(f"{record['kind']}/{key}", value, step)
        writer.flush()

    return write


def _is_kept(line: str, step: int, is_validated: bool) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    if not isinstance(record, dict) or not {"kind", "step"} <= record.keys():
        return False
    return record["step"] < step or (
        record["step"] == step and (is_validated or record["kind"] != "validation")
    )
