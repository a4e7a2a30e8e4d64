"""BLIP-2's tensor names: LAVIS' and Hugging Face's, put into the names that the parts have here.

Inside the vision part names are Hugging Face's, as its network is.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part and by their name inside it."""

Rules = Sequence[tuple[str, str]]
"""Patterns of whole names and what becomes of them, `PART:NAME`; the first that matches is taken, `` drops it."""


def _layers(prefix: str, inner: str) -> Rules:
    """The rules for a Q-Former's layers, whose attention calls its projections `inner`."""
    layer = rf"{prefix}\.encoder\.layer\.(\d+)\."
    here, words = r"connector:layers.layers.\1", r"connector:text.ffns.\1"
    return (
        (rf"{layer}attention\.{inner}\.(query|key|value)\.(.+)", rf"{here}.attention.\2.\3"),
        (rf"{layer}attention\.output\.dense\.(.+)", rf"{here}.attention.out.\2"),
        (rf"{layer}attention\.output\.LayerNorm\.(.+)", rf"{here}.attention.norm.\2"),
        (rf"{layer}crossattention\.{inner}\.(query|key|value)\.(.+)", rf"{here}.cross_attention.\2.\3"),
        (rf"{layer}crossattention\.output\.dense\.(.+)", rf"{here}.cross_attention.out.\2"),
        (rf"{layer}crossattention\.output\.LayerNorm\.(.+)", rf"{here}.cross_attention.norm.\2"),
        (rf"{layer}intermediate_query\.dense\.(.+)", rf"{here}.ffn.expand.\2"),
        (rf"{layer}output_query\.dense\.(.+)", rf"{here}.ffn.contract.\2"),
        (rf"{layer}output_query\.LayerNorm\.(.+)", rf"{here}.ffn.norm.\2"),
        (rf"{layer}intermediate\.dense\.(.+)", rf"{words}.expand.\2"),
        (rf"{layer}output\.dense\.(.+)", rf"{words}.contract.\2"),
        (rf"{layer}output\.LayerNorm\.(.+)", rf"{words}.norm.\2"),
    )


LAVIS: Rules = (
    (r"query_tokens", "connector:queries"),
    (r"ln_vision\.(.+)", r"connector:patch_norm.\1"),
    (r"Qformer\.bert\.embeddings\.position_ids", ""),
    (r"Qformer\.bert\.embeddings\.LayerNorm\.(.+)", r"connector:layers.norm.\1"),
    (r"Qformer\.bert\.embeddings\.word_embeddings\.(.+)", r"connector:text.words.\1"),
    (r"Qformer\.bert\.embeddings\.position_embeddings\.(.+)", r"connector:text.positions.\1"),
    *_layers(r"Qformer\.bert", "self"),
    (r"Qformer\.cls\.predictions\.transform\.dense\.(.+)", r"connector:text.head.0.\1"),
    (r"Qformer\.cls\.predictions\.transform\.LayerNorm\.(.+)", r"connector:text.head.2.\1"),
    (r"Qformer\.cls\.predictions\.bias", "connector:text.head_bias"),
    (r"Qformer\.cls\.predictions\.decoder\.(.+)", ""),  # tied to the words, and the bias a second time
    (r"(?:opt|t5)_proj\.(.+)", r"connector:projection.\1"),
    (r"vision_proj\.(.+)", r"heads:image.\1"),
    (r"text_proj\.(.+)", r"heads:text.\1"),
    (r"itm_head\.(.+)", r"heads:match.\1"),
    (r"temp", "heads:temperature"),
    (r"visual_encoder\.cls_token", "vision:embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", "vision:embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.(.+)", r"vision:embeddings.patch_embedding.\1"),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.(.+)", r"vision:encoder.layers.\1.self_attn.projection.\2"),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.(.+)", r"vision:encoder.layers.\1.self_attn.\2"),
    (r"visual_encoder\.blocks\.(\d+)\.norm(\d)\.(.+)", r"vision:encoder.layers.\1.layer_norm\2.\3"),
    (r"visual_encoder\.blocks\.(\d+)\.mlp\.(.+)", r"vision:encoder.layers.\1.mlp.\2"),
)
"""The keys of LAVIS' checkpoints (`blip2_opt`, `blip2_t5` and `blip2`)."""

HUGGING_FACE: Rules = (
    (r"query_tokens", "connector:queries"),
    (r"vision_model\.post_layernorm\.(.+)", r"connector:patch_norm.\1"),
    (r"vision_model\.(.+)", r"vision:\1"),
    (r"qformer\.layernorm\.(.+)", r"connector:layers.norm.\1"),
    *_layers("qformer", "attention"),
    (r"embeddings\.word_embeddings\.(.+)", r"connector:text.words.\1"),
    (r"embeddings\.position_embeddings\.(.+)", r"connector:text.positions.\1"),
    (r"language_projection\.(.+)", r"connector:projection.\1"),
    (r"vision_projection\.(.+)", r"heads:image.\1"),
    (r"text_projection\.(.+)", r"heads:text.\1"),
    (r"itm_head\.(.+)", r"heads:match.\1"),
    (r"language_model\.(.+)", r"language:\1"),
)
"""The keys of transformers' own BLIP-2 models."""

BERT: Rules = (
    (r"bert\.embeddings\.LayerNorm\.(.+)", r"connector:layers.norm.\1"),
    (r"bert\.embeddings\.word_embeddings\.(.+)", r"connector:text.words.\1"),
    (r"bert\.embeddings\.position_embeddings\.(.+)", r"connector:text.positions.\1"),
    (r"bert\.embeddings\.(?:token_type_embeddings\.|position_ids).*", ""),  # a Q-Former has no token types
    *_layers("bert", "self"),
    (r"cls\.predictions\.transform\.dense\.(.+)", r"connector:text.head.0.\1"),
    (r"cls\.predictions\.transform\.LayerNorm\.(.+)", r"connector:text.head.2.\1"),
    (r"cls\.predictions\.bias", "connector:text.head_bias"),
    (r"(?:cls\.predictions\.decoder|cls\.seq_relationship|bert\.pooler)\..+", ""),
)
"""The keys of a BERT with its output head."""


def by_part(tensors: Mapping[str, Tensor], rules: Rules) -> tuple[Parts, list[str]]:
    """The tensors by part under the names they have here, and the names that no rule knows."""
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    unknown = []
    for name, tensor in tensors.items():
        renamed = renamed_by(name, rules)
        if renamed is None:
            unknown.append(name)
        elif renamed:
            part, _, inside = renamed.partition(":")
            parts[part][inside] = tensor
    queries = parts["connector"].get("queries")
    if queries is not None and queries.ndim == 3:
        parts["connector"]["queries"] = queries[0]
    if "vision" in parts:
        parts["vision"] = _one_bias(parts["vision"])
    return dict(parts), unknown


def renamed_by(name: str, rules: Rules) -> str | None:
    """`PART:NAME` of one tensor, empty where it is not needed, None where no rule knows it."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None


def _one_bias(vision: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAVIS keeps biases of queries and values apart and has none of keys; here they are one vector with zeros."""
    joined = {name: tensor for name, tensor in vision.items() if not name.endswith((".q_bias", ".v_bias"))}
    for name, tensor in vision.items():
        if name.endswith(".q_bias"):
            place = name.removesuffix("q_bias")
            joined[f"{place}qkv.bias"] = torch.cat(
                [tensor, torch.zeros_like(tensor), vision[f"{place}v_bias"]]
            )
    return joined
