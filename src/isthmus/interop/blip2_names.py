"""BLIP-2's tensor names: LAVIS' and Hugging Face's, put into the names that the parts have here.

Inside the vision part names are Hugging Face's, as its network is.
"""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from isthmus.interop.bert_names import (
    UNUSED,
    attention_rules,
    feed_forward_rules,
    head_rules,
    table_rules,
    word_rules,
)
from isthmus.interop.patterns import Parts, Rules, place_of


def _layers(prefix: str, inner: str) -> Rules:
    """The rules for a Q-Former's layers, whose attention calls its projections `inner`."""
    layer = rf"{prefix}\.encoder\.layer\.(\d+)"
    here = r"connector:layers.layers.\1"
    return (
        *attention_rules(rf"{layer}\.attention", rf"{here}.attention", inner=inner),
        *attention_rules(rf"{layer}\.crossattention", rf"{here}.cross_attention", inner=inner),
        *feed_forward_rules(layer, rf"{here}.ffn", suffix="_query"),
        *feed_forward_rules(layer, r"connector:text.ffns.\1"),
    )


def _words(prefix: str) -> Rules:
    return word_rules(prefix, "connector:text.", norm="connector:layers.norm")


LAVIS: Rules = (
    (r"query_tokens", "connector:queries"),
    (r"ln_vision\.(.+)", r"connector:patch_norm.\1"),
    *_words(r"Qformer\.bert"),
    *_layers(r"Qformer\.bert", "self"),
    *head_rules(r"Qformer\.cls", "connector:text."),
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
    *table_rules("embeddings", "connector:text."),
    (r"language_projection\.(.+)", r"connector:projection.\1"),
    (r"vision_projection\.(.+)", r"heads:image.\1"),
    (r"text_projection\.(.+)", r"heads:text.\1"),
    (r"itm_head\.(.+)", r"heads:match.\1"),
    (r"language_model\.(.+)", r"language:\1"),
)
"""The keys of transformers' own BLIP-2 models."""

BERT: Rules = (
    *_words("bert"),
    *_layers("bert", "self"),
    *head_rules("cls", "connector:text."),
    *UNUSED,
)
"""The keys of a BERT with its output head."""


def by_part(tensors: Mapping[str, Tensor], rules: Rules) -> tuple[Parts, list[str]]:
    """The tensors by part under the names they have here, and the names that no rule knows."""
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    unknown = []
    for name, tensor in tensors.items():
        place = place_of(name, rules)
        if place is None:
            unknown.append(name)
        elif place.part:
            parts[place.part][place.name] = tensor
    queries = parts["connector"].get("queries")
    if queries is not None and queries.ndim == 3:
        parts["connector"]["queries"] = queries[0]
    if "vision" in parts:
        parts["vision"] = _one_bias(parts["vision"])
    return dict(parts), unknown


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
