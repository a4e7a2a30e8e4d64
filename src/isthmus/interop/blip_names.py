"""BLIP's tensor names, transformers' and those of its own code, put into the names that the parts have here."""

from isthmus.interop.blip2_names import Rules


def _layers(prefix: str, part: str) -> Rules:
    """The rules for a stack of BERT's layers whose self-attention belongs to `part`."""
    layer = rf"{prefix}\.encoder\.layer\.(\d+)\."
    own, cross, ffn = rf"{part}:attentions.\1", r"text:cross_attentions.\1", r"text:ffns.\1"
    return (
        (rf"{layer}attention\.self\.(query|key|value)\.(.+)", rf"{own}.\2.\3"),
        (rf"{layer}attention\.output\.dense\.(.+)", rf"{own}.out.\2"),
        (rf"{layer}attention\.output\.LayerNorm\.(.+)", rf"{own}.norm.\2"),
        (rf"{layer}crossattention\.self\.(query|key|value)\.(.+)", rf"{cross}.\2.\3"),
        (rf"{layer}crossattention\.output\.dense\.(.+)", rf"{cross}.out.\2"),
        (rf"{layer}crossattention\.output\.LayerNorm\.(.+)", rf"{cross}.norm.\2"),
        (rf"{layer}intermediate\.dense\.(.+)", rf"{ffn}.expand.\2"),
        (rf"{layer}output\.dense\.(.+)", rf"{ffn}.contract.\2"),
        (rf"{layer}output\.LayerNorm\.(.+)", rf"{ffn}.norm.\2"),
    )


def _words(prefix: str) -> Rules:
    """The rules for BERT's embeddings."""
    return (
        (rf"{prefix}\.embeddings\.word_embeddings\.(.+)", r"text:words.\1"),
        (rf"{prefix}\.embeddings\.position_embeddings\.(.+)", r"text:positions.\1"),
        (rf"{prefix}\.embeddings\.LayerNorm\.(.+)", r"text:norm.\1"),
        (rf"{prefix}\.embeddings\.position_ids", ""),
    )


def _head(prefix: str) -> Rules:
    """The rules for BERT's output head."""
    return (
        (rf"{prefix}\.predictions\.transform\.dense\.(.+)", r"decoder:head.0.\1"),
        (rf"{prefix}\.predictions\.transform\.LayerNorm\.(.+)", r"decoder:head.2.\1"),
        (rf"{prefix}\.predictions\.bias", "decoder:head_bias"),
        (rf"{prefix}\.predictions\.decoder\..+", ""),  # tied to the words, and the bias a second time
    )


ENCODER: Rules = (*_words("text_encoder"), *_layers("text_encoder", "encoder"))
"""The text encoder, under the same names in both layouts."""

DECODER: Rules = (
    *_words(r"text_decoder\.bert"),
    *_layers(r"text_decoder\.bert", "decoder"),
    *_head(r"text_decoder\.cls"),
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
    *_head("cls"),
    (r"bert\.embeddings\.token_type_embeddings\..+", ""),  # MED has no token types
    (r"(?:cls\.seq_relationship|bert\.pooler)\..+", ""),
)
"""The keys of a BERT with its output head; its self-attention is put into the encoder."""
