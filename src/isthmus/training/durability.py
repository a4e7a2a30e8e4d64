"""Tensors as bytes on a disk."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

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


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that these tensors take on disk, headers apart."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
