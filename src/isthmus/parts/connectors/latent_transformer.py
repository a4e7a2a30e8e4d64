"""Latents that read patches and then each other, at the width of the language model (AnyMAL, Moon et al., 2023)."""

from dataclasses import dataclass
from typing import final

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.nn.attention import CrossAttention, SelfAttention, check_heads
from isthmus.parts.connectors.connector import Connector


@dataclass(frozen=True, kw_only=True)
class LatentShape:
    """Sizes of a latent transformer; AnyMAL's image model is the default.

    Attributes:
        num_latents: Learned queries, which is the number of visual tokens.
        num_layers: Blocks.
        num_heads: Heads of both attentions.
        ffn_multiple: Feed-forward width as a multiple of the token's.
        context_norm: Whether each block normalises the patches before it reads them.
    """

    num_latents: int = 64
    num_layers: int = 6
    num_heads: int = 16
    ffn_multiple: int = 4
    context_norm: bool = True


class LatentBlock(nn.Module):
    """Pre-norm: latents read the patches (which are the only keys), then each other, then a feed-forward with GELU."""

    def __init__(self, *, width: int, shape: LatentShape) -> None:
        super().__init__()
        self.norm_latents = nn.LayerNorm(width)
        self.norm_patches = nn.LayerNorm(width) if shape.context_norm else nn.Identity()
        self.cross_attention = CrossAttention(
            width=width,
            context_width=width,
            num_heads=shape.num_heads,
            head_width=width // shape.num_heads,
            bias=True,
        )
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width=width, num_heads=shape.num_heads)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, shape.ffn_multiple * width),
            nn.GELU(),
            nn.Linear(shape.ffn_multiple * width, width),
        )

    def forward(
        self,
        latents: Float[Tensor, "image latent dim"],
        patches: Float[Tensor, "image patch dim"],
        mask: Bool[Tensor, "image patch"] | None = None,
    ) -> Float[Tensor, "image latent dim"]:
        """Update the latents once; patches where `mask` is False are not seen."""
        latents = latents + self.cross_attention(self.norm_latents(latents), self.norm_patches(patches), mask)
        latents = latents + self.self_attention(self.norm_self(latents))
        return latents + self.ffn(self.norm_ffn(latents))


@final
class LatentTransformer(Connector):
    """Patches are mapped to the language width first; blocks of that width do the rest, which makes it large.

    At width 4096 it has 1.6 billion parameters, a fifth of an 8B language model.
    """

    def __init__(self, *, vision_width: int, language_width: int, shape: LatentShape) -> None:
        """Build the blocks.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings; the heads divide it.
            shape: The blocks.
        """
        super().__init__()
        check_heads(language_width, shape.num_heads)
        self.map = nn.Linear(vision_width, language_width)
        self.latents = nn.Parameter(torch.randn(shape.num_latents, language_width) * 0.02)
        self.blocks = nn.ModuleList(
            LatentBlock(width=language_width, shape=shape) for _ in range(shape.num_layers)
        )
        self.norm = nn.LayerNorm(language_width)

    def num_tokens(self, num_patches: int) -> int:
        """The number of latents, whatever the number of patches."""
        return self.latents.shape[0]

    def forward(
        self,
        patches: Float[Tensor, "image patch dim"],
        mask: Bool[Tensor, "image patch"] | None = None,
    ) -> Float[Tensor, "image token width"]:
        """Summarise each picture; patches where `mask` is False change nothing."""
        context = self.map(patches)
        latents = repeat(self.latents, "latent dim -> image latent dim", image=patches.shape[0])
        for block in self.blocks:
            latents = block(latents, context, mask)
        return self.norm(latents)
