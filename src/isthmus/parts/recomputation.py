"""Activation checkpointing: layers run again in the backward pass and keep only their inputs (Chen et al., 2016).

Hugging Face's own switch works only while a layer's `training` is true, so a frozen model in eval mode silently
recomputes nothing although gradients pass through it to the connector; and turning `training` on for the layer would
turn on the dropouts that some layers call as functions (OPT, Falcon). So a layer's `forward` is replaced here for as
long as its stage lasts, and modes stay what they are. It runs inside the layer's hooks: whatever is hooked in front of
a decoder layer (gated cross-attention) runs once. Without gradients layers run as they always do, and dropout draws the
same numbers both times.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from isthmus.nn.transformer import Block


def repeated_layers(part: nn.Module) -> list[nn.Module]:
    """The layers that a part is a stack of: decoder layers, encoder layers, our own transformer blocks."""
    return [module for module in part.modules() if isinstance(module, GradientCheckpointingLayer | Block)]


def set_recomputed(part: nn.Module, *, enabled: bool) -> int:
    """Let the layers of a part be recomputed, or keep their activations again; returns how many layers there are."""
    layers = repeated_layers(part)
    for layer in layers:
        found = layer.__dict__.get("forward")
        is_set = isinstance(found, partial) and found.func is checkpoint
        if enabled and not is_set:
            # Partials name their layer as an argument, so that a deep copy of the layer gets ones that name the copy.
            layer.forward = partial(checkpoint, partial(type(layer).forward, layer), use_reentrant=False)
        elif not enabled and is_set:
            del layer.__dict__["forward"]
    return len(layers)
