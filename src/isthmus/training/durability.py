"""Writing files so that a crash leaves either the old state or the new one."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from isthmus.core.errors import MachineError

_BLOCK = 1 << 20
_MARGIN = 1 << 16
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def sync(path: Path) -> None:
    """Ask the disk to keep a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place, synced, when the block ends; else nothing is left of it.

    Raises:
        MachineError: The disk refuses.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise MachineError(
            f"{path} cannot be written ({error.strerror}); free some space and go on with --resume"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON and sync it; numbers that are not finite are refused."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as a safetensors file and sync it; tensors that share memory are written apart.

    The format is a length, a JSON header and the bytes of the tensors
    (https://huggingface.co/docs/safetensors, "Format"). It is written here, one tensor at a time, because the library's
    own writer hides the disk's error behind one of its own and replaces what stands at `path` by a new file.

    Raises:
        OSError: The disk refuses.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(bytes_of(tensor))
        file.flush()
        os.fsync(file.fileno())


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row-major order, without a copy where it lies in memory that way."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


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


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that these tensors take on disk, headers apart."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
