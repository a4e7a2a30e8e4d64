"""MAE's checkpoints, in the official key layout and as transformers holds them, read into a masked image model."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PretrainedConfig, ViTMAEForPreTraining

from isthmus.core.errors import CheckpointError
from isthmus.interop.alike import differences, refuse_differences
from isthmus.interop.renaming import renamed, with_joined_attention
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.vision.predictor import PixelPredictor
from isthmus.training.state import mismatches

_OUTSIDE = {
    "cls_token": "vision.cls",
    "pos_embed": "vision.positions.table",
    "patch_embed.proj.": "vision.patch_embedding.projection.",
    "norm.": "vision.norm.",
    "decoder_embed.": "predictor.embed.",
    "mask_token": "predictor.mask_token",
    "decoder_pos_embed": "predictor.positions.table",
    "decoder_norm.": "predictor.norm.",
    "decoder_pred.": "predictor.head.",
}
_OUTSIDE_THERE = {
    "vit.embeddings.cls_token": "vision.cls",
    "vit.embeddings.position_embeddings": "vision.positions.table",
    "vit.embeddings.patch_embeddings.projection.": "vision.patch_embedding.projection.",
    "vit.layernorm.": "vision.norm.",
    "decoder.decoder_embed.": "predictor.embed.",
    "decoder.mask_token": "predictor.mask_token",
    "decoder.decoder_pos_embed": "predictor.positions.table",
    "decoder.decoder_norm.": "predictor.norm.",
    "decoder.decoder_pred.": "predictor.head.",
}
_INSIDE = {
    "attn.qkv.": "attention.qkv.",
    "attn.proj.": "attention.out.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "mlp.fc1.": "ffn.0.",
    "mlp.fc2.": "ffn.2.",
}
_INSIDE_THERE = {
    "attention.q_proj.": "attention.query.",
    "attention.k_proj.": "attention.key.",
    "attention.v_proj.": "attention.value.",
    "attention.o_proj.": "attention.out.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "mlp.fc1.": "ffn.0.",
    "mlp.fc2.": "ffn.2.",
}
_BLOCK = re.compile(r"(?P<before>decoder_)?blocks\.(?P<number>\d+)\.(?P<inside>.+)")
_BLOCK_THERE = re.compile(r"(?P<before>vit|decoder)\.(?:decoder_)?layers\.(?P<number>\d+)\.(?P<inside>.+)")
_WHOLE = ("vision.cls", "vision.positions.table", "predictor.mask_token", "predictor.positions.table")
"""Tensors that are published with leading sides of length one."""


def read_mae_file(file: Path) -> dict[str, Tensor]:
    """The weights of a `.safetensors` file with the official keys, by this project's names.

    Raises:
        CheckpointError: The file is missing or damaged, or holds something else.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give a .safetensors file with MAE's official keys")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); fetch it again or restore it from a copy"
        ) from error
    return _own_names(tensors, _OUTSIDE, _INSIDE, _BLOCK)


@torch.no_grad()
def load_mae(model: MaskedImageModel, source: PretrainedSource | Mapping[str, Tensor], *, name: str) -> None:
    """Fill a model from a checkpoint of the same architecture.

    Official files of the encoder alone have no decoder; then the predictor keeps its initial values.

    Args:
        model: What is filled.
        source: A Hugging Face folder or hub name, or what `read_mae_file` gave.
        name: What messages call it.

    Raises:
        OSError: The folder or name is not there.
        CheckpointError: It holds another kind of model, does not fit, or has other heads or activations; every
            difference is listed.
    """
    tensors = _read_there(source) if isinstance(source, PretrainedSource) else source
    expected = model.state_dict()
    if not any(one.startswith("predictor.") for one in tensors):
        expected = {one: value for one, value in expected.items() if not one.startswith("predictor.")}
    wrong = mismatches(tensors, expected)
    if wrong:
        raise CheckpointError(f"the weights of {name} do not fit the model: {'; '.join(wrong[:8])}")
    if isinstance(source, PretrainedSource):
        refuse_differences([*_differences(model, load_configuration(source))], name=name)
    for one, tensor in expected.items():
        tensor.copy_(tensors[one])


def _differences(model: MaskedImageModel, theirs: PretrainedConfig) -> Iterator[str]:
    """Not the epsilon of norms: the published folders say 1e-12, the weights were trained with 1e-6."""
    assert isinstance(model.predictor, PixelPredictor)
    for part, shape, heads in (
        ("vision", model.vision.transformer.shape, theirs.num_attention_heads),
        ("predictor", model.predictor.transformer.shape, theirs.decoder_num_attention_heads),
    ):
        yield from differences(part, shape, heads=heads, activation=theirs.hidden_act)


def _read_there(source: PretrainedSource) -> dict[str, Tensor]:
    """A Hugging Face MAE; transformers itself reads the files, so that those of its older versions are read too."""
    kind = load_configuration(source).model_type
    if kind != "vit_mae":
        raise CheckpointError(f"'{source.name}' is a '{kind}'; expected a vit_mae, with its decoder")
    try:
        network = load_network(ViTMAEForPreTraining, source)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return with_joined_attention(
        _own_names(network.state_dict(), _OUTSIDE_THERE, _INSIDE_THERE, _BLOCK_THERE)
    )


def _own_names(
    tensors: Mapping[str, Tensor],
    outside: Mapping[str, str],
    inside: Mapping[str, str],
    block: re.Pattern[str],
) -> dict[str, Tensor]:
    read: dict[str, Tensor] = {}
    strange = []
    for name, tensor in tensors.items():
        found = block.fullmatch(name)
        within = renamed(found["inside"], inside) if found is not None else None
        if found is not None and within is not None:
            part = "predictor" if (found["before"] or "").startswith("decoder") else "vision"
            read[f"{part}.transformer.blocks.{found['number']}.{within}"] = tensor
        elif (own := renamed(name, outside)) is not None:
            read[own] = tensor.squeeze(0).squeeze(0) if own in _WHOLE else tensor
        else:
            strange.append(name)
    if strange:
        raise CheckpointError(
            f"tensors that are no part of an MAE: {', '.join(strange[:6])}"
            + (f" and {len(strange) - 6} more" if len(strange) > 6 else "")
        )
    return read
