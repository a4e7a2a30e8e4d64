"""BEiT's pretraining checkpoints as transformers holds them, read into a masked image model of codes."""

import re

import torch
from torch import Tensor
from transformers import BeitForMaskedImageModeling

from isthmus.core.errors import CheckpointError
from isthmus.interop.alike import differences, refuse_differences
from isthmus.interop.renaming import renamed
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.training.state import mismatches

_OUTSIDE = {
    "beit.embeddings.cls_token": "vision.cls",
    "beit.embeddings.mask_token": "vision.mask_token",
    "beit.embeddings.patch_embeddings.projection.": "vision.patch_embedding.projection.",
    "beit.shared_position_bias.relative_position_bias_table": "vision.relative.table",
    "layernorm.": "vision.norm.",
    "lm_head.": "predictor.head.",
}
_INSIDE = {
    "attention.o_proj.": "attention.out.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "mlp.fc1.": "ffn.0.",
    "mlp.fc2.": "ffn.2.",
}
_JOINED = {
    "attention.qkv.weight": tuple(f"attention.{one}_proj.weight" for one in "qkv"),
    "attention.query_value_bias": tuple(f"attention.{one}_proj.bias" for one in "qv"),
    "scales": ("lambda_1", "lambda_2"),
}
"""Ours, and theirs that it holds one after the other, or on top of each other where each is a vector."""

_BLOCK = re.compile(r"beit\.layers\.(\d+)\.(.+)")
_WHOLE = ("vision.cls", "vision.mask_token")
_OWN = "tokenizer."


@torch.no_grad()
def load_beit(model: MaskedImageModel, source: PretrainedSource, *, name: str) -> None:
    """Fill the encoder and the predictor; the tokenizer, which these checkpoints do not hold, stays as it is.

    Args:
        model: What is filled; as many codes as the checkpoint's head has.
        source: A Hugging Face folder or hub name.
        name: What messages call it.

    Raises:
        OSError: The folder or name is not there.
        CheckpointError: It holds another kind of model, does not fit, or has other heads or another activation; every
            difference is listed.
    """
    theirs = load_configuration(source)
    if theirs.model_type != "beit":
        raise CheckpointError(
            f"'{source.name}' is a '{theirs.model_type}'; expected a beit for masked image modelling"
        )
    try:
        network = load_network(BeitForMaskedImageModeling, source)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    tensors = own_names(network.state_dict())
    expected = {one: value for one, value in model.state_dict().items() if not one.startswith(_OWN)}
    wrong = mismatches(tensors, expected)
    if wrong:
        raise CheckpointError(f"the weights of {name} do not fit the model: {'; '.join(wrong[:8])}")
    # Not the epsilon of norms: the published folders say 1e-12, the weights were trained with 1e-6.
    shape, heads = model.vision.transformer.shape, theirs.num_attention_heads
    refuse_differences([*differences("vision", shape, heads=heads, activation=theirs.hidden_act)], name=name)
    for one, tensor in expected.items():
        tensor.copy_(tensors[one])


def own_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of transformers' `BeitForMaskedImageModeling` by this project's names.

    Raises:
        CheckpointError: A name has no place here.
    """
    read: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if block is None:
            own = renamed(name, _OUTSIDE)
            if own is None:
                raise CheckpointError(f"the checkpoint's tensor {name} has no place in a BEiT here")
            read[own] = tensor.reshape(-1) if own in _WHOLE else tensor
        elif (inside := renamed(block[2], _INSIDE)) is not None:
            read[f"vision.transformer.blocks.{block[1]}.{inside}"] = tensor
        else:
            for ours, theirs in _JOINED.items():
                if block[2] == theirs[0]:
                    parts = [tensors[f"beit.layers.{block[1]}.{one}"] for one in theirs]
                    joined = torch.cat(parts) if tensor.dim() > 1 else torch.stack(parts)
                    read[f"vision.transformer.blocks.{block[1]}.{ours}"] = joined
    return read
