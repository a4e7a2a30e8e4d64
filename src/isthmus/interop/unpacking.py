"""Run in a process of its own: opens a file that might run code, and writes its tensors as safetensors.

    python -I unpacking.py SOURCE TARGET MEMORY_BYTES CPU_SECONDS

The process imports nothing of Isthmus and sets its own limits before it opens the file: memory, processor time, the
size of what it writes, no core dump. `conversion.convert` starts it and judges what it wrote.
"""

import resource
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(source: Path, target: Path, *, memory_bytes: int, cpu_s: int) -> None:
    """Write the tensors of `source` to `target`."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 4 * source.stat().st_size + 1_000_000,
        resource.RLIMIT_CORE: 0,
    }
    for name, limit in limits.items():
        resource.setrlimit(name, (limit, limit))
    tensors = {
        str(name): tensor.contiguous().clone()
        for name, tensor in _opened(source).items()
        if isinstance(tensor, torch.Tensor) and not tensor.is_sparse
    }
    save_file(tensors, target, metadata={"format": "pt"})


def _opened(source: Path) -> dict[str, object]:
    """The tensors by name: of a TorchScript archive, as OpenAI's files are, or of a plain dictionary of tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(torch.jit.load(source, map_location="cpu").state_dict())
        except RuntimeError:
            opened = torch.load(source, map_location="cpu", weights_only=True)
    for inner in ("state_dict", "model"):
        opened = opened.get(inner, opened)
    return dict(opened)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), memory_bytes=int(sys.argv[3]), cpu_s=int(sys.argv[4]))
