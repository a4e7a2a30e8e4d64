"""One process at a time in a run directory."""

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO, Self, final

from isthmus.core.errors import CheckpointError

LOCK = "run.lock"
"""The file that names the process which holds the directory."""


class InUse(CheckpointError):
    """Another process holds the directory."""


@final
class DirectoryLock:
    """Holds a directory while a `with` block runs.

    The kernel holds the lock and drops it when the process dies, so what a killed process left behind never blocks; the
    file only names the holder.

    Args:
        directory: What to hold; made where it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            InUse: Another process holds it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "a process that did not name itself"
            file.close()
            raise InUse(
                f"{self._path.parent} is in use by {holder}; expected a directory no other process writes to; wait for "
                f"it, stop it, or use another directory"
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.truncate(0)
        self._file.close()
        self._file = None
