"""An append-only file of replies: what is in it is never asked for again, wherever the run was stopped."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Self, final

from isthmus.core.errors import CheckpointError
from isthmus.curation.instructions.writer import Reply


@final
class Journal:
    """Replies by the keys of their requests.

    The first line holds the settings that decide what a reply says; a journal of other settings is refused. A last line
    that a crash cut short is cut off: its request is asked again.

    Args:
        file: The journal; made where it is missing.
        settings: What decides the replies.

    Raises:
        CheckpointError: The journal is damaged, or of other settings.
    """

    def __init__(self, file: Path, settings: Mapping[str, object]) -> None:
        self._file = file
        self._settings = dict(settings)
        self._synced = 0.0
        self._stream: IO[str] | None = None
        self.replies: dict[str, Reply] = {}

    def __enter__(self) -> Self:
        kept = self._read() if self._file.exists() else 0
        self._stream = self._file.open("r+" if kept else "w", encoding="utf-8")
        self._stream.truncate(kept)
        self._stream.seek(kept)
        if not kept:
            self._append({"settings": self._settings})
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stream is not None
        self._sync()
        self._stream.close()
        self._stream = None

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply: at once for a process that is killed, within a second for a machine that fails."""
        self._append({"key": key} | asdict(reply))
        self.replies[key] = reply

    def _append(self, record: Mapping[str, object]) -> None:
        assert self._stream is not None
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        if time.monotonic() - self._synced > 1:
            self._sync()

    def _sync(self) -> None:
        assert self._stream is not None
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def _read(self) -> int:
        """Take in what is there; gives the number of bytes that are whole lines."""
        written = self._file.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines()):
            try:
                record = json.loads(line)
                if number == 0:
                    self._compare(record["settings"])
                else:
                    key = record.pop("key")
                    self.replies[key] = Reply(**record)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"{self._file} line {number + 1} is damaged; restore the file, or write to another folder"
                ) from error
        return len(whole)

    def _compare(self, found: Mapping[str, object]) -> None:
        for name, value in self._settings.items():
            if found.get(name) != value:
                raise CheckpointError(
                    f"{self._file} was written with {name} = {found.get(name)}, and now it is {value}; go on with the "
                    "same settings, or write to another folder"
                )
