"""CLIP's published key layout (OpenAI, open_clip, Alpha-CLIP), read into a dual encoder's names and written back."""

import re
from collections.abc import Iterable, Mapping

import torch
from einops import rearrange
from torch import Tensor

from isthmus.core.errors import CheckpointError
from isthmus.interop.renaming import renamed

_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask")
"""What OpenAI's archives and open_clip's files hold besides."""

_OUTSIDE = {
    "visual.conv1.": "vision.patch_embedding.projection.",
    "visual.conv1_alpha.": "vision.patch_embedding.projection.alpha.",
    "visual.class_embedding": "vision.cls",
    "visual.ln_pre.": "vision.pre_norm.",
    "visual.ln_post.": "vision.norm.",
    "visual.proj": "image_head.projection.weight",
    "token_embedding.": "text.embedding.",
    "positional_embedding": "text.positions",
    "ln_final.": "text.norm.",
    "text_projection": "text.projection.weight",
    "logit_scale": "scale.log_scale",
    "logit_bias": "scale.bias",
}
_INSIDE = {
    "attn.in_proj_": "attention.qkv.",
    "attn.in_proj.": "attention.qkv.",
    "attn.out_proj.": "attention.out.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "ffn.0.",
    "mlp.c_proj.": "ffn.2.",
}
_WRITTEN_INSIDE = {ours: theirs for theirs, ours in reversed(_INSIDE.items())}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_OWN_BLOCK = re.compile(r"(vision|text)\.transformer\.blocks\.(\d+)\.(.+)")
_TRANSPOSED = ("visual.proj", "text_projection")
_PLACES = "visual.positional_embedding"


def is_clip_layout(names: Iterable[str]) -> bool:
    """Whether these are the names of OpenAI's and open_clip's files."""
    return any(name.removeprefix("module.").startswith("visual.") for name in names)


def read_clip_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by a dual encoder's own names.

    `module.` in front (a file saved while several processes trained) and `text.` before text keys (open_clip's custom
    text models) are dropped; half-precision weights, as OpenAI's are, become float32.

    Raises:
        CheckpointError: Names have no place here; all are listed.
    """
    read: dict[str, Tensor] = {}
    strange = []
    for full, tensor in tensors.items():
        name = full.removeprefix("module.").removeprefix("text.")
        if full.removeprefix("module.") in _NOT_WEIGHTS:
            continue
        own = _own_name(name)
        if name == _PLACES:
            read["vision.cls_position"] = tensor[0].float()
            read["vision.positions.table"] = tensor[1:].float()
        elif own is None:
            strange.append(full)
        else:
            value = rearrange(tensor, "width dim -> dim width") if name in _TRANSPOSED else tensor
            read[own] = (value.reshape(()) if own.startswith("scale.") else value).float()
    if strange:
        raise CheckpointError(
            f"the file has CLIP's keys and {len(strange)} others that no CLIP with a vision transformer has: "
            f"{', '.join(sorted(strange)[:5])}; convert it to that layout, or choose a ViT"
        )
    return read


def write_clip_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A dual encoder's state under OpenAI's names; the way back of `read_clip_layout`.

    Raises:
        CheckpointError: A tensor has no place in that layout; all are listed.
    """
    outside = {ours: theirs for theirs, ours in _OUTSIDE.items()}
    written: dict[str, Tensor] = {}
    strange = []
    for name, tensor in tensors.items():
        if name in ("vision.cls_position", "vision.positions.table"):
            continue
        theirs = _their_name(name, outside)
        if theirs is None:
            strange.append(name)
        else:
            value = rearrange(tensor, "dim width -> width dim") if theirs in _TRANSPOSED else tensor
            written[theirs] = value.contiguous()
    if "vision.cls_position" not in tensors:
        strange.append("a CLS without a position of its own")
    if strange:
        raise CheckpointError(
            f"the model has {len(strange)} tensors without a place in CLIP's layout: {', '.join(sorted(strange)[:5])}; "
            "only CLIP's own architecture can be written so"
        )
    cls = rearrange(tensors["vision.cls_position"], "dim -> 1 dim")
    written[_PLACES] = torch.cat([cls, tensors["vision.positions.table"]])
    return written


def _own_name(name: str) -> str | None:
    block = _BLOCK.fullmatch(name)
    if block is None:
        return renamed(name, _OUTSIDE)
    inside = renamed(block[3], _INSIDE)
    side = "vision" if block[1] else "text"
    return None if inside is None else f"{side}.transformer.blocks.{block[2]}.{inside}"


def _their_name(name: str, outside: Mapping[str, str]) -> str | None:
    block = _OWN_BLOCK.fullmatch(name)
    if block is None:
        return renamed(name, outside)
    inside = renamed(block[3], _WRITTEN_INSIDE)
    side = "visual." if block[1] == "vision" else ""
    return None if inside is None else f"{side}transformer.resblocks.{block[2]}.{inside}"
