"""SigLIP and LiT as big_vision saves them (`.npz` of arrays), read into a dual encoder's names."""

import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from isthmus.core.errors import CheckpointError
from isthmus.interop.renaming import with_joined_attention

_BLOCK = re.compile(r"(img/Transformer|txt/Encoder_0)/encoderblock_(\d+)/(.+)")
_STACKED = re.compile(r"(img/Transformer|txt/Encoder_0)/encoderblock/(.+)")
_WORDS = {
    "img/Transformer": "vision.transformer.blocks",
    "txt/Encoder_0": "text.transformer.blocks",
    "LayerNorm_0": "norm1",
    "LayerNorm_1": "norm2",
    "MultiHeadDotProductAttention_0": "attention",
    "MlpBlock_0/Dense_0": "ffn.0",
    "MlpBlock_0/Dense_1": "ffn.2",
}
_PLACES = {
    "img/embedding": "vision.patch_embedding.projection",
    "img/pos_embedding": "vision.positions.table",
    "img/cls": "vision.cls",
    "img/Transformer/encoder_norm": "vision.norm",
    "img/head": "image_head.projection",
    "img/MAPHead_0/probe": "image_head.probe",
    "img/MAPHead_0/MultiHeadDotProductAttention_0": "image_head.attention",
    "img/MAPHead_0/LayerNorm_0": "image_head.norm",
    "img/MAPHead_0/MlpBlock_0/Dense_0": "image_head.ffn.0",
    "img/MAPHead_0/MlpBlock_0/Dense_1": "image_head.ffn.2",
    "txt/Embed_0/embedding": "text.embedding.weight",
    "txt/pos_embedding": "text.positions",
    "txt/Encoder_0/encoder_norm": "text.norm",
    "txt/head": "text.projection",
    "t": "scale.log_scale",
    "b": "scale.bias",
}
_KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def read_big_vision(file: Path) -> dict[str, Tensor]:
    """The weights of a `.npz` by a dual encoder's own names; arrays only, nothing in the file is run.

    Kernels are (in, heads, dim of a head) or (in, out) there and (out, in) here; a patch kernel is (height, width,
    channel, dim) there. A table of positions with one row more than a square grid, as old LiT files have, gives that
    row to CLS. `t` is the logarithm of the scale.

    Raises:
        CheckpointError: The file is damaged, or holds arrays that have no place here; the first are named.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name.removeprefix("params/"): torch.from_numpy(stored[name]) for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, TypeError) as error:
        raise CheckpointError(f"{file} is damaged or no .npz of arrays ({error}); fetch it again") from error
    read: dict[str, Tensor] = {}
    strange = []
    for name, array in _unstacked(arrays).items():
        own = _own_name(name)
        if own is None:
            strange.append(name)
        else:
            read[own] = _turned(name, own, array.float())
    if strange:
        raise CheckpointError(
            f"{file} holds {len(strange)} arrays that are no part of a SigLIP or of a LiT with a text transformer: "
            f"{', '.join(sorted(strange)[:5])}; only these layouts are read"
        )
    return _with_plain_cls(with_joined_attention(read))


def _unstacked(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Blocks that were saved as one stack (`encoderblock`), apart; the optimizer's numbers left aside."""
    apart: dict[str, Tensor] = {}
    for name, array in arrays.items():
        stacked = _STACKED.fullmatch(name)
        if stacked is not None:
            apart |= {f"{stacked[1]}/encoderblock_{at}/{stacked[2]}": one for at, one in enumerate(array)}
        elif not name.startswith("opt/"):
            apart[name] = array
    return apart


def _own_name(name: str) -> str | None:
    block = _BLOCK.fullmatch(name)
    if block is not None:
        inside = _below(block[3], _WORDS)
        return None if inside is None else f"{_WORDS[block[1]]}.{block[2]}.{inside}"
    return _below(name, _PLACES)


def _below(name: str, words: Mapping[str, str]) -> str | None:
    """The name with the module's own words, its further parts and its kind of array translated."""
    if name in words:
        return words[name]
    module = next((old for old in words if name.startswith(f"{old}/")), None)
    if module is None:
        return None
    *inner, kind = name.removeprefix(f"{module}/").split("/")
    if kind not in _KINDS or len(inner) > 1:
        return None
    return ".".join([words[module], *inner, _KINDS[kind]])


def _turned(name: str, own: str, array: Tensor) -> Tensor:
    """An array in the order of axes that modules here have."""
    if own.startswith("scale."):
        return array.reshape(())
    if name.endswith("pos_embedding"):
        return rearrange(array, "1 place dim -> place dim")
    if own == "vision.cls":
        return rearrange(array, "1 1 dim -> dim")
    if own == "image_head.probe":
        return rearrange(array, "1 1 dim -> 1 dim")
    if not name.endswith("kernel"):
        return array.flatten() if "/MultiHeadDotProductAttention_0/" in name else array
    if array.ndim == 4:
        return rearrange(array, "height width channel dim -> dim channel height width")
    if array.ndim == 2:
        return rearrange(array, "before after -> after before")
    if name.endswith("out/kernel"):
        return rearrange(array, "head inner dim -> dim (head inner)")
    return rearrange(array, "dim head inner -> (head inner) dim")


def _with_plain_cls(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    table, cls = tensors.get("vision.positions.table"), tensors.get("vision.cls")
    if table is None or cls is None or int(table.shape[0] ** 0.5) ** 2 == table.shape[0]:
        return tensors
    return tensors | {"vision.cls": cls + table[0], "vision.positions.table": table[1:]}
