"""Filling a dual encoder from a published CLIP, SigLIP or LiT, whatever project wrote the file."""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from isthmus.core.errors import CheckpointError
from isthmus.core.sizes import Size
from isthmus.interop.big_vision import read_big_vision
from isthmus.interop.clip_layout import is_clip_layout, read_clip_layout
from isthmus.models.dual_encoder import DualEncoder
from isthmus.nn.positions import resized
from isthmus.training.state import mismatches

_STARTS_AT_ZERO = "vision.patch_embedding.projection.alpha.weight"
"""What only Alpha-CLIP's own files hold; from others it stays zero."""

_POSITIONS = "vision.positions.table"


def read_weights_file(file: Path) -> dict[str, Tensor]:
    """The weights of a `.safetensors` file with CLIP's keys, or of a big_vision `.npz`, by a dual encoder's own names.

    Raises:
        CheckpointError: The file is missing, damaged, or of a kind that is not read in this process.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give a .safetensors or .npz file")
    if file.suffix == ".npz":
        return read_big_vision(file)
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file} may run code when it is opened, so it is not read here; make a .safetensors file of it with "
            "scripts/convert_clip.py"
        )
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); fetch it again or restore it from a copy"
        ) from error
    if not is_clip_layout(tensors):
        raise CheckpointError(
            f"{file} has none of the keys of OpenAI's or open_clip's CLIP (visual.…), first is "
            f"{min(tensors, default='nothing')}; a Hugging Face checkpoint is given as its folder"
        )
    return read_clip_layout(tensors)


@torch.no_grad()
def fill(model: DualEncoder, tensors: Mapping[str, Tensor], *, name: str) -> None:
    """Put weights into a dual encoder of the same architecture.

    Args:
        model: The model; alpha that the weights do not know stays at zero, and positions of another square grid are
            interpolated (bicubic with antialiasing, as in open_clip).
        tensors: Weights by the model's own names.
        name: What messages call them.

    Raises:
        CheckpointError: They do not fit; every difference is listed.
    """
    expected = model.state_dict()
    if _STARTS_AT_ZERO in expected and _STARTS_AT_ZERO not in tensors:
        tensors = {**tensors, _STARTS_AT_ZERO: torch.zeros_like(expected[_STARTS_AT_ZERO])}
    tensors = {**tensors, **_fitted_positions(tensors, expected)}
    wrong = mismatches(tensors, expected)
    if wrong:
        raise CheckpointError(f"the weights of {name} do not fit the model: {'; '.join(wrong[:8])}")
    model.load_state_dict(tensors)


def _fitted_positions(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Learned positions for the model's own grid; nothing where they fit or there are none."""
    found, wanted = tensors.get(_POSITIONS), expected.get(_POSITIONS)
    if found is None or wanted is None or found.shape[0] == wanted.shape[0]:
        return {}
    sides = [isqrt(table.shape[0]) for table in (found, wanted)]
    if [side * side for side in sides] != [found.shape[0], wanted.shape[0]]:
        return {}
    return {_POSITIONS: resized(found, Size(sides[0], sides[0]), Size(sides[1], sides[1]))}
