"""CLIP and SigLIP as transformers holds them, read into a dual encoder's names."""

import re
from collections.abc import Iterator

from einops import rearrange
from torch import Tensor
from transformers import CLIPModel, PretrainedConfig, SiglipModel

from isthmus.core.errors import CheckpointError
from isthmus.interop.alike import differences, refuse_differences
from isthmus.interop.dual_encoders import fill
from isthmus.interop.renaming import renamed, with_joined_attention
from isthmus.models.dual_encoder import DualEncoder
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.language.text_encoder import TextEncoder
from isthmus.parts.vision.head import ImageHead
from isthmus.parts.vision.vit import ViT

_OUTSIDE = {
    "vision_model.embeddings.class_embedding": "vision.cls",
    "vision_model.embeddings.patch_embedding.": "vision.patch_embedding.projection.",
    "vision_model.pre_layrnorm.": "vision.pre_norm.",
    "vision_model.post_layernorm.": "vision.norm.",
    "vision_model.head.attention.out_proj.": "image_head.attention.out.",
    "vision_model.head.layernorm.": "image_head.norm.",
    "vision_model.head.mlp.fc1.": "image_head.ffn.0.",
    "vision_model.head.mlp.fc2.": "image_head.ffn.2.",
    "visual_projection.": "image_head.projection.",
    "text_model.embeddings.token_embedding.": "text.embedding.",
    "text_model.embeddings.position_embedding.weight": "text.positions",
    "text_model.final_layer_norm.": "text.norm.",
    "text_model.head.": "text.projection.",
    "text_projection.": "text.projection.",
}
_INSIDE = {
    "self_attn.q_proj.": "attention.query.",
    "self_attn.k_proj.": "attention.key.",
    "self_attn.v_proj.": "attention.value.",
    "self_attn.out_proj.": "attention.out.",
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "mlp.fc1.": "ffn.0.",
    "mlp.fc2.": "ffn.2.",
}
_BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)")
_SCALARS = {"logit_scale": "scale.log_scale", "logit_bias": "scale.bias"}
_PLACES = "vision_model.embeddings.position_embedding.weight"
_PROBE, _PROBE_READS = "vision_model.head.probe", "vision_model.head.attention.in_proj_"


def fill_from_hugging_face(model: DualEncoder, source: PretrainedSource, *, name: str) -> None:
    """Put the weights of a CLIP or SigLIP folder or hub name into a dual encoder that computes the same.

    transformers itself reads the files, so that folders of its older versions are read too.

    Args:
        model: What is filled.
        source: The folder or hub name.
        name: What messages call it.

    Raises:
        OSError: The folder or name is not there.
        CheckpointError: It holds another kind of model, lacks weights, does not fit, or its configuration says that the
            same weights compute something else; all differences are listed.
    """
    configuration = load_configuration(source)
    kind = configuration.model_type
    if kind not in ("clip", "siglip"):
        raise CheckpointError(
            f"'{source.name}' is a '{kind}'; expected a whole clip or siglip, with both encoders"
        )
    try:
        network = load_network(CLIPModel if kind == "clip" else SiglipModel, source)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    fill(model, own_names(network.state_dict(), has_cls=kind == "clip"), name=name)
    refuse_differences([*_differences(model, configuration)], name=name)


def _differences(model: DualEncoder, configuration: PretrainedConfig) -> Iterator[str]:
    assert isinstance(model.vision, ViT)
    assert isinstance(model.text, TextEncoder)
    for part, shape, theirs in (
        ("vision", model.vision.transformer.shape, configuration.vision_config),
        ("text", model.text.transformer.shape, configuration.text_config),
    ):
        yield from differences(
            part,
            shape,
            heads=theirs.num_attention_heads,
            activation=theirs.hidden_act,
            norm_eps=theirs.layer_norm_eps,
        )
    pool = "end" if configuration.model_type == "clip" else "last"
    if model.text.pool != pool:
        yield f"text.pool is {pool}, the model has {model.text.pool}"
    if isinstance(model.image_head, ImageHead) and model.image_head.pooling != "first":
        yield f"image_head.pooling is first, the model has {model.image_head.pooling}"
    if isinstance(model.image_head, ImageHead) and model.vision.features == "patches":
        yield "vision.features is cls, the model has patches"


def own_names(tensors: dict[str, Tensor], *, has_cls: bool) -> dict[str, Tensor]:
    """The state of transformers' `CLIPModel` or `SiglipModel` by a dual encoder's own names.

    Raises:
        CheckpointError: A name has no place here.
    """
    read: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if name in _SCALARS:
            read[_SCALARS[name]] = tensor.reshape(())
        elif name == _PLACES:
            read["vision.positions.table"] = tensor[1:] if has_cls else tensor
            if has_cls:
                read["vision.cls_position"] = tensor[0]
        elif name == _PROBE:
            read["image_head.probe"] = rearrange(tensor, "1 1 dim -> 1 dim")
        elif name.startswith(_PROBE_READS):
            kind = name.removeprefix(_PROBE_READS)
            for word, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                read[f"image_head.attention.{word}.{kind}"] = third
        elif block is not None and (inside := renamed(block[3], _INSIDE)) is not None:
            read[f"{block[1]}.transformer.blocks.{block[2]}.{inside}"] = tensor
        elif (own := renamed(name, _OUTSIDE)) is not None:
            read[own] = tensor
        else:
            raise CheckpointError(f"the checkpoint's tensor {name} has no place in a dual encoder here")
    return with_joined_attention(read)
