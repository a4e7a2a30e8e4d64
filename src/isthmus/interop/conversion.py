"""Making a `.safetensors` file of a CLIP checkpoint that could run code if it were opened here."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from isthmus.core.errors import CheckpointError, DataError
from isthmus.interop.clip_layout import is_clip_layout

_PROGRAM = Path(__file__).with_name("unpacking.py")
_TORCH_BYTES = 8 << 30
"""Address space that a process needs only to import torch; most of it is never touched."""


def convert(source: Path, target: Path, *, timeout_s: float = 600.0) -> int:
    """Read OpenAI's TorchScript archive, or a file of `torch.save`, in a process with limits, and write safetensors.

    Of `torch.save` files only plain tensors in dictionaries are accepted (`weights_only`). The other process has an
    empty environment, a folder of its own, and limits on memory, processor time and the size of what it writes.

    Args:
        source: The `.pt`, `.pth` or `.bin` file.
        target: Where the `.safetensors` file goes; what is there already is kept.
        timeout_s: Seconds after which the other process is stopped.

    Returns:
        The number of tensors that were written.

    Raises:
        DataError: There is no such file, or the target exists.
        CheckpointError: It cannot be opened within the limits, or it holds no CLIP.
    """
    if not source.is_file():
        raise DataError(f"{source} does not exist; give a .pt, .pth or .bin file")
    if target.exists():
        raise DataError(f"{target} exists already; remove it or choose another name")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "made.safetensors"
        limits = (str(_TORCH_BYTES + 8 * source.stat().st_size), str(int(timeout_s)))
        command = [sys.executable, "-I", str(_PROGRAM), str(source.resolve()), str(made), *limits]
        try:
            ended = subprocess.run(
                command,
                cwd=folder,
                env={"PATH": os.defpath},
                capture_output=True,
                text=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(
                f"{source} was not read within {timeout_s:g} seconds; it may be no checkpoint, or raise the limit"
            ) from error
        if ended.returncode != 0 or not made.is_file():
            last = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
            raise CheckpointError(
                f"{source} could not be read ({last}); "
                "expected a TorchScript archive of CLIP or a dictionary of tensors"
            )
        names = _names(made)
        if not is_clip_layout(names):
            raise CheckpointError(
                f"{source} has none of the keys of OpenAI's or open_clip's CLIP (visual.…), first is "
                f"{min(names, default='nothing')}; only these are converted"
            )
        made.rename(target)
    return len(names)


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as stored:
            return list(stored.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"what was converted cannot be read again ({error}); try once more") from error
