"""DALL-E's discrete VAE as OpenAI names its tensors, read into a visual tokenizer.

The published files, `encoder.pkl` and `decoder.pkl`, are pickled modules and are never opened here; what is read are
the two modules' state dicts, saved as `encoder.safetensors` and `decoder.safetensors`.
"""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from isthmus.core.errors import CheckpointError
from isthmus.parts.vision.tokenizer import VisualTokenizer
from isthmus.training.state import mismatches

_KINDS = {"w": "weight", "b": "bias"}
_BLOCK = re.compile(
    r"blocks\.group_(?P<group>\d+)\.block_(?P<block>\d+)\.(?:(?P<skip>id_path)|res_path\.conv_(?P<number>\d+))"
)
_SIDES = {"encoder": "scores", "decoder": "decoder"}


@torch.no_grad()
def load_dall_e(tokenizer: VisualTokenizer, folder: Path, *, name: str) -> None:
    """Fill a tokenizer of DALL-E's shape.

    Args:
        tokenizer: What is filled.
        folder: Holds `encoder.safetensors` and `decoder.safetensors`.
        name: What messages call it.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit; every difference is listed.
    """
    found: dict[str, Tensor] = {}
    for side, part in _SIDES.items():
        for key, tensor in _read(folder / f"{side}.safetensors").items():
            found |= _own(key, tensor, part=part, name=name)
    kept = {"temperature": tokenizer.temperature}
    wrong = mismatches(found | kept, tokenizer.state_dict())
    if wrong:
        raise CheckpointError(f"the weights of {name} do not fit DALL-E's tokenizer: {'; '.join(wrong[:8])}")
    tokenizer.load_state_dict(found | kept)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing; expected the state dict of DALL-E's {file.stem}, saved as safetensors"
        )
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is damaged; copy it again") from error


def _own(key: str, tensor: Tensor, *, part: str, name: str) -> dict[str, Tensor]:
    """One tensor by this project's name; the decoder's first layer is a vector for each code."""
    place, _, kind = key.rpartition(".")
    block = _BLOCK.fullmatch(place)
    if kind in _KINDS and block is not None:
        inside = "skip" if block["skip"] else f"convolutions.{int(block['number']) - 1}"
        group, number = int(block["group"]) - 1, int(block["block"]) - 1
        return {f"{part}.groups.{group}.{number}.{inside}.{_KINDS[kind]}": tensor}
    match part, key:
        case "decoder", "blocks.input.w":
            return {"codes.weight": tensor.squeeze(-1).squeeze(-1).T.contiguous()}
        case "decoder", "blocks.input.b":
            return {"decoder.bias": tensor}
        case "scores", "blocks.input.w" | "blocks.input.b":
            return {f"scores.input.{_KINDS[kind]}": tensor}
        case _, "blocks.output.conv.w" | "blocks.output.conv.b":
            return {f"{part}.output.{_KINDS[kind]}": tensor}
        case _:
            raise CheckpointError(f"{name} holds '{key}', which is no part of DALL-E's tokenizer")
