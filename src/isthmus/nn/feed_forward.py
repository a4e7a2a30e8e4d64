"""Feed-forward layers without biases, as Flamingo's trained blocks have them, and the functions inside them."""

from typing import Any, Literal, assert_never, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["gelu", "squared_relu", "relu", "quick_gelu", "tanh_gelu"]
"""Exact GELU (OpenFlamingo), squared ReLU (Alayrac et al., 2022, appendix A.1.1), ReLU (IDEFICS), x * sigmoid(1.702 x)
(OpenAI's CLIP), or GELU by its tanh approximation (SigLIP)."""


@final
class SquaredReLU(nn.Module):
    """max(0, x)^2 (So et al., 2021, section 3.3)."""

    def forward(self, tokens: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply it to every number."""
        return tokens.relu().square()


_QUICK = 1.702


class _Quick(torch.autograd.Function):
    """With silu(x) = x * sigmoid(x) it is silu(a x) / a, so its slope at x is silu's at a x: one pass, not five."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        return (_QUICK * tokens).sigmoid_().mul_(tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (tokens,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradients[0], _QUICK * tokens)


@final
class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the GELU that OpenAI's CLIP weights were trained with (Hendrycks and Gimpel, 2016)."""

    def forward(self, tokens: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply it to every number."""
        return _Quick.apply(tokens)


def activation_of(name: Activation) -> nn.Module:
    """The function of this name."""
    match name:
        case "gelu":
            return nn.GELU()
        case "squared_relu":
            return SquaredReLU()
        case "relu":
            return nn.ReLU()
        case "quick_gelu":
            return QuickGELU()
        case "tanh_gelu":
            return nn.GELU(approximate="tanh")
        case _:
            assert_never(name)


def feed_forward(*, width: int, multiple: int, activation: Activation = "gelu") -> nn.Sequential:
    """Norm, widen by `multiple`, activation, narrow again; only the norm has a bias."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, multiple * width, bias=False),
        activation_of(activation),
        nn.Linear(multiple * width, width, bias=False),
    )
