"""From an encoder's patches to one vector in the space shared with texts."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.nn.attention import CrossAttention
from isthmus.nn.feed_forward import activation_of
from isthmus.nn.pooling import AttentionPool, masked_mean
from isthmus.nn.token_norm import Norm, token_norm
from isthmus.nn.transformer import TransformerShape

Pooling = Literal["mean", "first", "attention", "mean_attention"]


@dataclass(frozen=True, kw_only=True)
class HeadDropout:
    """What is dropped in training: fractions of feature channels, of patches, of the output."""

    channels: float = 0.0
    patches: float = 0.0
    output: float = 0.0


class ImageHead(nn.Module):
    """Norm, pooling over all positions, projection.

    `mean_attention` joins the plain mean, which keeps what the encoder was trained to say, with learned
    queries that choose where to look. A `token` norm is a layer norm; a `channel` norm brings every channel to
    zero mean and unit spread over the pictures (batch norm without weights), which a convolutional encoder's
    sparse, unequal channels want; `none` suits an encoder whose own last norm stands in front. With an `embed_dim` of
    None there is no projection and the pooled vector itself is compared, as in LiT (Zhai et al., 2022, appendix C).
    """

    def __init__(
        self,
        *,
        vision_width: int,
        embed_dim: int | None,
        pooling: Pooling = "mean",
        num_heads: int = 8,
        norm: Norm = "token",
        dropout: HeadDropout | None = None,
    ) -> None:
        super().__init__()
        self.norm = token_norm(norm, vision_width)
        self.pooling: Pooling = pooling
        self.attention = (
            AttentionPool(width=vision_width, num_heads=num_heads) if "attention" in pooling else None
        )
        self.rates = dropout or HeadDropout()
        self.drop_output = nn.Dropout(self.rates.output)
        num_vectors = (0 if pooling == "attention" else 1) + (num_heads if self.attention is not None else 0)
        self.projection = (
            nn.Identity()
            if embed_dim is None
            else nn.Linear(num_vectors * vision_width, embed_dim, bias=False)
        )

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image vector"]:
        """One vector a picture, not yet of unit length."""
        tokens = self.norm(patches)
        mask = self._kept(tokens)
        pooled: list[Tensor] = []
        if self.pooling == "first":
            pooled.append(tokens[:, :1])
        if self.pooling in ("mean", "mean_attention"):
            pooled.append(rearrange(masked_mean(tokens, mask), "image dim -> image 1 dim"))
        if self.attention is not None:
            pooled.append(self.attention(tokens, mask))
        joined = torch.cat(pooled, dim=1)
        if self.training and self.rates.channels > 0:
            kept = (
                torch.rand(joined.shape[0], 1, joined.shape[2], device=joined.device) >= self.rates.channels
            )
            joined = joined * kept / (1 - self.rates.channels)
        vector = self.projection(rearrange(joined, "image part dim -> image (part dim)"))
        return self.drop_output(vector)

    def _kept(self, tokens: Float[Tensor, "image patch dim"]) -> Bool[Tensor, "image patch"]:
        """Which patches are looked at; each picture loses its own share, on average `patches`."""
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if self.training and self.rates.patches > 0:
            share = 2 * self.rates.patches * torch.rand(tokens.shape[0], 1, device=tokens.device)
            mask = torch.rand(tokens.shape[:2], device=tokens.device) >= share
            mask[:, 0] |= ~mask.any(dim=1)
        return mask


class MapHead(nn.Module):
    """Multi-head attention pooling: a learned probe reads all patches, then a feed-forward (Zhai et al., 2022).

    SigLIP's image head (Zhai et al., 2023, published code): what the probe reads is not added to the probe, the
    feed-forward's result is added to what was read, and no projection follows.
    """

    def __init__(self, *, shape: TransformerShape) -> None:
        """Build the head with the encoder's width, heads, feed-forward, epsilon and activation; layers do not count."""
        super().__init__()
        width, hidden = shape.width, round(shape.width * shape.ffn_multiple)
        self.probe = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, width)))
        self.attention = CrossAttention(
            width=width,
            context_width=width,
            num_heads=shape.num_heads,
            head_width=width // shape.num_heads,
            bias=True,
        )
        self.norm = nn.LayerNorm(width, eps=shape.norm_eps)
        self.ffn = nn.Sequential(
            nn.Linear(width, hidden), activation_of(shape.activation), nn.Linear(hidden, width)
        )

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image dim"]:
        """One vector a picture, not yet of unit length."""
        probe = repeat(self.probe, "1 dim -> image 1 dim", image=patches.shape[0])
        read = rearrange(self.attention(probe, patches), "image 1 dim -> image dim")
        return read + self.ffn(self.norm(read))
