"""BLIP's tensor names, transformers' and those of its own code, put into the names that the parts have here."""

from isthmus.interop.bert_names import UNUSED, attention_rules, feed_forward_rules, head_rules, word_rules
from isthmus.interop.patterns import Rules


def _layers(prefix: str, part: str) -> Rules:
    """The rules for a stack of BERT's layers whose self-attention belongs to `part`."""
    layer = rf"{prefix}\.encoder\.layer\.(\d+)"
    return (
        *attention_rules(rf"{layer}\.attention", rf"{part}:attentions.\1"),
        *attention_rules(rf"{layer}\.crossattention", r"text:cross_attentions.\1"),
        *feed_forward_rules(layer, r"text:ffns.\1"),
    )


def _words(prefix: str) -> Rules:
    return word_rules(prefix, "text:", norm="text:norm")


ENCODER: Rules = (*_words("text_encoder"), *_layers("text_encoder", "encoder"))
"""The text encoder, under the same names in both layouts."""

DECODER: Rules = (
    *_words(r"text_decoder\.bert"),
    *_layers(r"text_decoder\.bert", "decoder"),
    *head_rules(r"text_decoder\.cls", "decoder:"),
)
"""The text decoder, under the same names in both layouts."""

_HEADS: Rules = (
    (r"vision_proj\.(.+)", r"heads:image.\1"),
    (r"text_proj\.(.+)", r"heads:text.\1"),
    (r"itm_head\.(.+)", r"heads:match.\1"),
    (r"temp", "heads:temperature"),
)

_BLOCK = r"vision:transformer.blocks.\1"

REST: Rules = (
    *_HEADS,
    (r"vision_model\.embeddings\.class_embedding", "vision:cls"),
    (r"vision_model\.embeddings\.position_embedding", "vision:positions.table"),
    (r"vision_model\.embeddings\.patch_embedding\.(.+)", r"vision:patch_embedding.projection.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.+)", rf"{_BLOCK}.attention.qkv.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.(.+)", rf"{_BLOCK}.attention.out.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)\.(.+)", rf"{_BLOCK}.norm\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.(.+)", rf"{_BLOCK}.ffn.0.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc2\.(.+)", rf"{_BLOCK}.ffn.2.\2"),
    (r"vision_model\.post_layernorm\.(.+)", r"vision:norm.\1"),
    (r"visual_encoder\.cls_token", "vision:cls"),
    (r"visual_encoder\.pos_embed", "vision:positions.table"),
    (r"visual_encoder\.patch_embed\.proj\.(.+)", r"vision:patch_embedding.projection.\1"),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.qkv\.(.+)", rf"{_BLOCK}.attention.qkv.\2"),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.(.+)", rf"{_BLOCK}.attention.out.\2"),
    (r"visual_encoder\.blocks\.(\d+)\.norm(\d)\.(.+)", rf"{_BLOCK}.norm\2.\3"),
    (r"visual_encoder\.blocks\.(\d+)\.mlp\.fc1\.(.+)", rf"{_BLOCK}.ffn.0.\2"),
    (r"visual_encoder\.blocks\.(\d+)\.mlp\.fc2\.(.+)", rf"{_BLOCK}.ffn.2.\2"),
    (r"visual_encoder\.norm\.(.+)", r"vision:norm.\1"),
    (r"\w+_m\..+", ""),  # slow copies
    (r"(?:image|text|idx)_queue|queue_ptr|ptr_queue", ""),
)
"""Vision encoder and heads in both layouts, and the state of training that a model is not made of."""

BERT: Rules = (
    *_words("bert"),
    *_layers("bert", "encoder"),
    *head_rules("cls", "decoder:"),
    *UNUSED,
)
"""The keys of a BERT with its output head; its self-attention is put into the encoder."""
