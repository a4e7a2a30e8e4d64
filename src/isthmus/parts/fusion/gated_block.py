"""One gated cross-attention block: text reads pictures through gates that start shut (Alayrac et al., 2022)."""

from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.nn.attention import CrossAttention
from isthmus.nn.feed_forward import Activation, feed_forward


@dataclass(frozen=True, kw_only=True)
class GatedShape:
    """Sizes of a gated block; OpenFlamingo's is the default.

    Attributes:
        num_heads: Heads of the cross-attention.
        head_width: Size of one head.
        ffn_multiple: Feed-forward width as a multiple of the language model's.
        activation: What stands inside the feed-forward.
    """

    num_heads: int = 8
    head_width: int = 64
    ffn_multiple: int = 4
    activation: Activation = "gelu"


@final
class GatedBlock(nn.Module):
    """`y + tanh(a) attention(y, pictures)`, then `y + tanh(b) ffn(y)`, with a = b = 0 at the start (Figure 4).

    At the start the block is the identity, bit for bit. A position that sees no picture gets exactly zero from the
    attention; the feed-forward acts on every position.
    """

    def __init__(self, *, width: int, context_width: int, shape: GatedShape) -> None:
        """Build the block; only its norms have biases.

        Args:
            width: Size of the language model's hidden states.
            context_width: Size of the visual tokens.
            shape: Attention and feed-forward.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = CrossAttention(
            width=width, context_width=context_width, num_heads=shape.num_heads, head_width=shape.head_width
        )
        self.ffn = feed_forward(width=width, multiple=shape.ffn_multiple, activation=shape.activation)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.ffn_gate = nn.Parameter(torch.zeros(1))

    def keys_and_values(
        self, visual: Float[Tensor, "row token context_dim"]
    ) -> tuple[Float[Tensor, "row head token dim"], Float[Tensor, "row head token dim"]]:
        """What the text reads of some visual tokens."""
        return self.attention.keys_and_values(visual.to(self.norm.weight.dtype))

    def forward(
        self,
        hidden: Float[Tensor, "row position width"],
        key: Float[Tensor, "row head token dim"],
        value: Float[Tensor, "row head token dim"],
        seen: Bool[Tensor, "row position token"],
    ) -> Float[Tensor, "row position width"]:
        """Let each position read the visual tokens that it sees; the block computes in its own number format."""
        states = hidden.to(self.norm.weight.dtype)
        if seen.shape[2]:
            # A softmax over nothing is undefined, and one over masked scores is uniform: neither is "no picture".
            sees_none = rearrange(~seen.any(dim=-1), "row position -> row position 1")
            read = self.attention.read(self.norm(states), key, value, seen | sees_none)
            states = states + self.attention_gate.tanh() * read.masked_fill(sees_none, 0.0)
        return (states + self.ffn_gate.tanh() * self.ffn(states)).to(hidden.dtype)
