"""The Perceiver resampler: any number of patches to a fixed number of latents (Alayrac et al., 2022, section 3.1.1)."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.nn.attention import CrossAttention
from isthmus.parts.connectors.connector import Connector


class ResamplerLayer(nn.Module):
    """Latents read patches and themselves, then a feed-forward; no biases outside the norms."""

    def __init__(self, *, width: int, num_heads: int, head_width: int, ffn_multiple: int) -> None:
        super().__init__()
        self.norm_patches = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attention = CrossAttention(
            width=width, context_width=width, num_heads=num_heads, head_width=head_width
        )
        self.ffn = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, ffn_multiple * width, bias=False),
            nn.GELU(),
            nn.Linear(ffn_multiple * width, width, bias=False),
        )

    def forward(
        self, latents: Float[Tensor, "image latent dim"], patches: Float[Tensor, "image patch dim"]
    ) -> Float[Tensor, "image latent dim"]:
        """Update the latents once."""
        queries = self.norm_latents(latents)
        # Flamingo's keys and values are the patches *and* the latents themselves (Figure 5).
        context = torch.cat([self.norm_patches(patches), queries], dim=1)
        latents = latents + self.attention(queries, context)
        return latents + self.ffn(latents)


class PerceiverResampler(Connector):
    """Learned latents summarise the patches in rounds; a last map reaches the language width if it differs."""

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        num_latents: int,
        num_layers: int,
        num_heads: int,
        head_width: int = 64,
        ffn_multiple: int = 4,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, vision_width) * vision_width**-0.5)
        self.layers = nn.ModuleList(
            ResamplerLayer(
                width=vision_width, num_heads=num_heads, head_width=head_width, ffn_multiple=ffn_multiple
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(vision_width)
        self.map = (
            nn.Identity() if vision_width == language_width else nn.Linear(vision_width, language_width)
        )

    def num_tokens(self, num_patches: int) -> int:
        """The number of latents, whatever the number of patches."""
        return self.latents.shape[0]

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Summarise each picture."""
        latents = repeat(self.latents, "latent dim -> image latent dim", image=patches.shape[0])
        for layer in self.layers:
            latents = layer(latents, patches)
        return self.map(self.norm(latents))
