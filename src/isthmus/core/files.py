"""Writing files so that a crash leaves either the old state or the new one."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from isthmus.core.errors import MachineError

_BLOCK = 1 << 20
_MARGIN = 1 << 16


def sync(path: Path) -> None:
    """Ask the disk to keep a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, *, advice: str = "free some space and go on with --resume") -> Iterator[Path]:
    """A file to write beside `path`, which takes its place, synced, when the block ends; else nothing is left of it.

    Args:
        path: The file; its folder is made where it is missing.
        advice: What to do where the disk refuses.

    Raises:
        MachineError: The disk refuses.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        sync(unfinished)
        unfinished.replace(path)
        sync(path.parent)
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}); {advice}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_json(path: Path, content: object) -> None:
    """Write JSON and sync it; numbers that are not finite are refused."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def free_bytes(directory: Path) -> int:
    """Bytes free on the disk of a directory."""
    return shutil.disk_usage(directory).free


def require_space(directory: Path, *, needed: int, free: int, what: str) -> None:
    """Refuse to start writing what does not fit.

    Raises:
        MachineError: Fewer bytes are free than needed.
    """
    if free < needed + _MARGIN:
        raise MachineError(
            f"{what} needs {needed + _MARGIN:,} bytes, but only {free:,} bytes are free on the disk of {directory}; "
            f"nothing was written and earlier files are intact; free some space and go on with --resume"
        )
