"""OpenFlamingo's checkpoints, saved as safetensors, read into a model whose text reads pictures by gated attention.

A checkpoint holds what was trained: the resampler, the gated blocks and the language model's input embeddings, of which
two rows learnt; of GPT-NeoX's kind the output head too, whose new rows never learnt. CLIP and the rest of the language
model are not in it; they come from their own checkpoints.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from isthmus.core.errors import CheckpointError
from isthmus.interop.alike import refuse_differences
from isthmus.interop.llava import normalises
from isthmus.interop.renaming import renamed
from isthmus.interop.whole import read_tensors
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.nn.attention import CrossAttention
from isthmus.parts.connectors.perceiver_resampler import ResamplerLayer
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.vision.pretrained import TransformerEncoder
from isthmus.training.state import mismatches

_RESAMPLER = re.compile(r"perceiver\.layers\.(?P<number>\d+)\.(?P<inside>.+)")
_BLOCK = re.compile(
    r"lang_encoder\.(?:.+\.(?P<layer>\d+)\.gated_cross_attn_layer|gated_cross_attn_layers\.(?P<old>\d+))\.(?P<inside>.+)"
)
_LEFT_OUT = re.compile(r"vision_encoder\.|lang_encoder\.(?:old_decoder_blocks\.|.+\.decoder_layer\.)")
"""Frozen weights that some files repeat."""
_TABLES = ("wte.weight", "embed_tokens.weight", "embed_in.weight")
_HEADS = ("embed_out.weight", "lm_head.weight")
_NEW_ROWS = 3
"""At the end of the table: `<|endofchunk|>`, `<image>`, and the padding token that their tokenizers lack."""

_HEAD_WIDTH = 64
"""Entries of a head, in the resampler and in the blocks, whatever the language model."""

_OUTSIDE = {
    "perceiver.latents": "latents",
    "perceiver.frame_embs": "frame_positions",
    "perceiver.norm.": "norm.",
}
_ATTENTION = {"to_q.": "query.", "to_kv.": "key_value.", "to_out.": "out."}
_INSIDE_RESAMPLER = {
    "0.norm_media.": "norm_patches.",
    "0.norm_latents.": "norm_latents.",
    **{f"0.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "1.": "ffn.",
}
_INSIDE_BLOCK = {
    "attn_gate": "attention_gate",
    "ff_gate": "ffn_gate",
    "attn.norm.": "norm.",
    **{f"attn.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "ff.": "ffn.",
}


def load_open_flamingo(model: VisionLanguageModel, file: Path) -> None:
    """Fill the resampler, the gated blocks and the rows of `<image>` and `<|endofchunk|>`.

    Args:
        model: What is filled; its connector is a perceiver resampler read by gated cross-attention.
        file: OpenFlamingo's state dict under its own names, with or without `module.` in front.

    Raises:
        CheckpointError: The file is damaged, holds something else, or does not fit; all differences are listed and
            nothing is changed. Or the model would compute something else with them than they were trained for.
    """
    connector, fusion = model.attention_connector, model.fusion
    if connector is None or fusion is None:
        raise CheckpointError(f"{file} is for a model with cross_attention, which this one has not")
    refuse_differences([*_disagreements(model, connector, fusion)], name=str(file))
    tensors = {name.removeprefix("module."): one for name, one in read_tensors(file).items()}
    found, unknown = _own_names(tensors, fusion.layers)
    expected = _filled("connector", connector) | _filled("blocks", fusion.blocks)
    rows = {} if model.language.rows is None else model.language.rows.state_dict()
    # A head of LLaMA's kind is not in the file: its rows stay what they are.
    expected |= {f"rows.{name}": rows[name] for name in rows if name == "table" or f"rows.{name}" in found}
    found = {name: one for name, one in found.items() if not name.startswith("rows.") or name in expected}
    wrong = [f"unknown {name}" for name in unknown] + mismatches(found, expected)
    if wrong:
        raise CheckpointError(f"the weights of {file} do not fit the model: {'; '.join(wrong)}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def _disagreements(
    model: VisionLanguageModel, connector: nn.Module, fusion: GatedCrossAttention
) -> Iterator[str]:
    """In what a model differs from OpenFlamingo's although every weight finds its place."""
    encoder = model.vision
    if isinstance(encoder, TransformerEncoder):
        if encoder.features != "patches":
            yield f"vision.features are patches, the model has {encoder.features}"
        if normalises(encoder):
            yield "vision features are not normalised, the model has final_norm: true"
    for part, module in (("connector", connector), ("fusion", fusion)):
        attentions = [one for one in module.modules() if isinstance(one, CrossAttention)]
        widths = {one.query.out_features // one.num_heads for one in attentions} - {_HEAD_WIDTH}
        if widths:
            yield f"{part}.head_dim is {_HEAD_WIDTH}, the model has {min(widths)}"
        inside = [one[2] for one in module.modules() if isinstance(one, nn.Sequential) and len(one) == 4]
        if any(not isinstance(one, nn.GELU) or one.approximate != "none" for one in inside):
            yield f"{part}.activation is gelu, the model has another"
    if any(isinstance(one, ResamplerLayer) and not one.latent_keys for one in connector.modules()):
        yield "connector.latent_keys is true, the model has false"


def _filled(part: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}


def _own_names(tensors: Mapping[str, Tensor], layers: tuple[int, ...]) -> tuple[dict[str, Tensor], list[str]]:
    """What the file holds by the names that are filled, and the names that have no place."""
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        if _LEFT_OUT.match(name):
            continue
        if name.startswith("lang_encoder.") and name.endswith(_TABLES):
            found["rows.table"] = _rows(tensor)
            continue
        if name.startswith("lang_encoder.") and name.endswith(_HEADS):
            found["rows.head"] = _rows(tensor)
            continue
        own = _own_name(name, layers)
        if own is None:
            unknown.append(name)
        else:
            found[own] = (
                tensor.squeeze(1) if own == "connector.frame_positions" and tensor.ndim == 3 else tensor
            )
    return found, sorted(unknown)


def _own_name(name: str, layers: tuple[int, ...]) -> str | None:
    resampler, block = _RESAMPLER.fullmatch(name), _BLOCK.fullmatch(name)
    if resampler is not None:
        inside = renamed(resampler["inside"], _INSIDE_RESAMPLER)
        return None if inside is None else f"connector.layers.{resampler['number']}.{inside}"
    if block is not None:
        layer, inside = int(block["layer"] or block["old"]), renamed(block["inside"], _INSIDE_BLOCK)
        return None if inside is None or layer not in layers else f"blocks.{layers.index(layer)}.{inside}"
    outside = renamed(name, _OUTSIDE)
    return None if outside is None else f"connector.{outside}"


def _rows(table: Tensor) -> Tensor:
    """`<image>`, then `<|endofchunk|>`, as the trained rows here stand; all of a table that is too short."""
    if table.shape[0] < _NEW_ROWS:
        return table
    end_of_chunk, image = table[-_NEW_ROWS], table[-_NEW_ROWS + 1]
    return torch.stack([image, end_of_chunk])
