"""From many tokens to one vector: means that respect padding, and attention pooling with a learned query."""

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


def masked_mean(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch dim"]:
    """The mean of the tokens where `mask` is True; zero where a row has none."""
    weights = mask.to(tokens.dtype)
    total = einsum(tokens, weights, "batch token dim, batch token -> batch dim")
    return total / rearrange(weights.sum(dim=1).clamp(min=1), "batch -> batch 1")


class AttentionPool(nn.Module):
    """Learned queries weigh the tokens; every head has its own weights over positions.

    A light form of the attention-pooling head of Zhai et al. (2022, section 3.1): keys come from the tokens, one query a
    head is learned, and no feed-forward follows.
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"a width of {width} cannot be split over {num_heads} heads; choose a divisor of the width")
        self.num_heads = num_heads
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, width // num_heads), std=0.02))

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch dim"]:
        """One vector a row."""
        split = "batch token (head dim) -> batch head token dim"
        key = rearrange(self.key(tokens), split, head=self.num_heads)
        value = rearrange(self.value(tokens), split, head=self.num_heads)
        scores = einsum(key, self.query, "batch head token dim, head dim -> batch head token")
        weights = (scores * key.shape[-1] ** -0.5).softmax(dim=-1)
        pooled = einsum(weights, value, "batch head token, batch head token dim -> batch head dim")
        return rearrange(pooled, "batch head dim -> batch (head dim)")
