"""From many tokens to one vector: means that respect padding, and attention pooling with a learned query."""

import math

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


def masked_mean(
    tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch dim"]:
    """The mean of the tokens where `mask` is True; zero where a row has none."""
    weights = mask.to(tokens.dtype)
    total = einsum(tokens, weights, "batch token dim, batch token -> batch dim")
    return total / rearrange(weights.sum(dim=1).clamp(min=1), "batch -> batch 1")


class AttentionPool(nn.Module):
    """Learned queries look at the tokens; each gives a weighted mean of them, and a projection reads all of these.

    The attention-pooling head of Zhai et al. (2022, section 3.1) without its key and value matrices: one query
    a head is learned in the tokens' own space, where a key matrix would only rotate it, and values are mixed after
    pooling, which is the same sum at a fraction of the cost (no matrix of width x width on every token).
    """

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, width), std=0.02))

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch head dim"]:
        """One vector a head; tokens where `mask` is False get no weight."""
        scores = einsum(tokens, self.query, "batch token dim, head dim -> batch head token")
        if mask is not None:
            scores = scores.masked_fill(~rearrange(mask, "batch token -> batch 1 token"), float("-inf"))
        weights = (scores * tokens.shape[-1] ** -0.5).softmax(dim=-1)
        return einsum(weights, tokens, "batch head token, batch token dim -> batch head dim")


def square_side(num_patches: int) -> int:
    """The side of a square grid.

    Raises:
        ValueError: The patches are no square grid.
    """
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(
            f"{num_patches} tokens are no square grid; use features: patches, without CLS, of square pictures"
        )
    return side


def pool_grid(patches: Float[Tensor, "image patch dim"], side: int) -> Float[Tensor, "image pooled dim"]:
    """Average a square grid to `side` x `side` tokens; windows overlap where `side` does not divide it."""
    grid = rearrange(
        patches, "image (row column) dim -> image dim row column", row=square_side(patches.shape[1])
    )
    return rearrange(
        functional.adaptive_avg_pool2d(grid, side), "image dim row column -> image (row column) dim"
    )
