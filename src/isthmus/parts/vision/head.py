"""From an encoder's patches to one vector in the space shared with texts."""

from typing import Literal

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.nn.pooling import AttentionPool

Pooling = Literal["mean", "first", "attention", "mean_attention"]


class ImageHead(nn.Module):
    """Norm, pooling over all positions, projection.

    `mean_attention` joins the plain mean, which keeps what the encoder was trained to say, with an attention pool that
    learns where to look.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        embed_dim: int,
        pooling: Pooling = "mean",
        num_heads: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_width)
        self.pooling: Pooling = pooling
        self.attention = AttentionPool(width=vision_width, num_heads=num_heads) if "attention" in pooling else None
        self.dropout = nn.Dropout(dropout)
        joined = vision_width * (2 if pooling == "mean_attention" else 1)
        self.projection = nn.Linear(joined, embed_dim, bias=False)

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image vector"]:
        """One vector a picture, not yet of unit length."""
        tokens = self.norm(patches)
        pooled: list[Tensor] = []
        if self.pooling in ("mean", "mean_attention"):
            pooled.append(reduce(tokens, "image patch dim -> image dim", "mean"))
        if self.pooling == "first":
            pooled.append(tokens[:, 0])
        if self.attention is not None:
            pooled.append(self.attention(tokens))
        return self.projection(self.dropout(torch.cat(pooled, dim=-1)))
