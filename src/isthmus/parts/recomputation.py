"""Activation checkpointing: layers run again in the backward pass and keep only their inputs (Chen et al., 2016).

Hugging Face's own switch works only while a layer's `training` is true, so a frozen model in eval mode silently
recomputes nothing although gradients pass through it to the connector; and turning `training` on for the layer would
turn on the dropouts that some layers call as functions (OPT, Falcon). So a layer's `forward` is replaced here for as
long as its stage lasts, and modes stay what they are. It runs inside the layer's hooks: whatever is hooked in front of
a decoder layer (gated cross-attention) runs once.
"""

from typing import Any, final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from isthmus.nn.transformer import Block


@final
class Recomputed:
    """Stands in for `layer.forward`: keeps the inputs only, and runs the layer again when gradients are asked for.

    It is a plain object that names its layer, so that a copy of the layer gets a copy that names the copy.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """What the layer gives; dropout draws the same numbers both times."""
        forward = type(self.layer).forward
        if not torch.is_grad_enabled():
            return forward(self.layer, *inputs, **named)
        return checkpoint(forward, self.layer, *inputs, use_reentrant=False, **named)


def repeated_layers(part: nn.Module) -> list[nn.Module]:
    """The layers that a part is a stack of: decoder layers, encoder layers, our own transformer blocks."""
    return [module for module in part.modules() if isinstance(module, GradientCheckpointingLayer | Block)]


def set_recomputed(part: nn.Module, *, enabled: bool) -> int:
    """Let the layers of a part be recomputed, or keep their activations again; returns how many layers there are."""
    layers = repeated_layers(part)
    for layer in layers:
        is_set = isinstance(layer.__dict__.get("forward"), Recomputed)
        if enabled and not is_set:
            layer.forward = Recomputed(layer)
        elif not enabled and is_set:
            del layer.__dict__["forward"]
    return len(layers)
