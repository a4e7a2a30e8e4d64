"""Which device and number format a run uses."""

import contextlib
import ctypes
import ctypes.util
import sys
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from isthmus.core.errors import MachineError

Precision = Literal["auto", "fp32", "bf16"]


def choose_device(name: str) -> torch.device:
    """The device of a name as in `RunOptions`; `auto` takes an accelerator where there is one, else the processor.

    Raises:
        MachineError: The named device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError(
            f"device '{name}' is asked for, but this machine has no CUDA device; use --device cpu"
        )
    if name.startswith("mps") and not torch.backends.mps.is_available():
        raise MachineError(
            f"device '{name}' is asked for, but this machine has no MPS device; use --device cpu"
        )
    return torch.device(name)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run in hardware; emulated ones are slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


NARROW = 128
"""Below this width bf16 does not pay on a processor. Three transformer blocks, forward and backward, one thread with
AVX512: fp32 took 0.57 of bf16's time at width 64, 1.08 at 128, 1.42 at 192, 1.49 at 256, 1.79 at 512, 1.83 at 768."""


def precision_for(model: nn.Module, device: torch.device, precision: Precision) -> Precision:
    """What `auto` means for a model: fp32 on a processor if a linear layer is narrower than 128 both ways."""
    if precision != "auto" or device.type != "cpu":
        return precision
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    narrowest = min((max(layer.in_features, layer.out_features) for layer in layers), default=NARROW)
    return "fp32" if narrowest < NARROW else "auto"


@contextlib.contextmanager
def number_format(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run matrix products in bf16 where asked for (`auto`: where the machine has it); weights stay fp32."""
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        yield


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next tensor instead of handing it back to the system.

    By default every tensor above 32 MB is mapped afresh, and on virtual machines touching fresh pages is slow (measured
    0.2-0.4 GB/s against 4-7 GB/s for kept pages; encoding photos runs 1.5 to 2.5 times faster). Peak memory does not
    change; memory is handed back when the process ends.

    Returns:
        Whether the C library took the advice; other systems than Linux with glibc are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.util.find_library("c")
    if library is None or not library.startswith("libc.so.6"):
        return False
    tune = ctypes.CDLL(library).mallopt
    return bool(tune(_M_MMAP_THRESHOLD, 1 << 30)) and bool(tune(_M_TRIM_THRESHOLD, (1 << 31) - 1))
