"""The Perceiver resampler: any number of patches and frames to a fixed number of latents (Alayrac et al., 2022)."""

from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.nn.attention import CrossAttention
from isthmus.nn.feed_forward import Activation, feed_forward
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.frames import add_frame_positions, patch_mask


@dataclass(frozen=True, kw_only=True)
class ResamplerShape:
    """Sizes and variants of a resampler (section 3.1.1); OpenFlamingo's is the default.

    Attributes:
        num_latents: Learned queries, which is the number of visual tokens.
        num_layers: Rounds of attention and feed-forward.
        num_heads: Heads of each attention.
        head_width: Size of one head; all heads together may be narrower than a token.
        ffn_multiple: Feed-forward width as a multiple of the token's.
        activation: What stands inside the feed-forward.
        latent_keys: Whether latents are keys and values beside the patches (Flamingo) or patches alone are.
        final_norm: Whether a layer norm ends it.
        num_frames: Most frames of a video, each with a learned position; None takes single pictures without one.
    """

    num_latents: int = 64
    num_layers: int = 6
    num_heads: int = 8
    head_width: int = 64
    ffn_multiple: int = 4
    activation: Activation = "gelu"
    latent_keys: bool = True
    final_norm: bool = True
    num_frames: int | None = None


class ResamplerLayer(nn.Module):
    """Latents read patches (and themselves), then a feed-forward; no biases outside the norms."""

    def __init__(self, *, width: int, shape: ResamplerShape) -> None:
        super().__init__()
        self.latent_keys = shape.latent_keys
        self.norm_patches = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attention = CrossAttention(
            width=width, context_width=width, num_heads=shape.num_heads, head_width=shape.head_width
        )
        self.ffn = feed_forward(width=width, multiple=shape.ffn_multiple, activation=shape.activation)

    def forward(
        self,
        latents: Float[Tensor, "image latent dim"],
        patches: Float[Tensor, "image patch dim"],
        mask: Bool[Tensor, "image patch"] | None = None,
    ) -> Float[Tensor, "image latent dim"]:
        """Update the latents once; patches where `mask` is False are not seen."""
        queries = self.norm_latents(latents)
        context = self.norm_patches(patches)
        if (
            self.latent_keys
        ):  # Flamingo's keys and values are the patches *and* the latents themselves (Figure 5).
            context = torch.cat([context, queries], dim=1)
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(queries.shape[:2])], dim=1)
        latents = latents + self.attention(queries, context, mask)
        return latents + self.ffn(latents)


@final
class PerceiverResampler(Connector):
    """Learned latents summarise the patches in rounds; a last map reaches the asked width if it differs."""

    def __init__(self, *, vision_width: int, language_width: int, shape: ResamplerShape) -> None:
        """Build the layers, all as wide as the encoder's tokens.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the visual tokens that leave.
            shape: The layers.
        """
        super().__init__()
        self.latents = nn.Parameter(torch.randn(shape.num_latents, vision_width) * vision_width**-0.5)
        self.frame_positions = (
            None
            if shape.num_frames is None
            else nn.Parameter(torch.randn(shape.num_frames, vision_width) * vision_width**-0.5)
        )
        self.layers = nn.ModuleList(
            ResamplerLayer(width=vision_width, shape=shape) for _ in range(shape.num_layers)
        )
        self.norm = nn.LayerNorm(vision_width) if shape.final_norm else nn.Identity()
        self.map = (
            nn.Identity() if vision_width == language_width else nn.Linear(vision_width, language_width)
        )

    def num_tokens(self, num_patches: int) -> int:
        """The number of latents, whatever the number of patches."""
        return self.latents.shape[0]

    def forward(
        self,
        patches: Float[Tensor, "image patch dim"],
        mask: Bool[Tensor, "image patch"] | None = None,
    ) -> Float[Tensor, "image token width"]:
        """Summarise each picture; patches where `mask` is False change nothing."""
        return self.summarise(
            rearrange(patches, "image patch dim -> image 1 patch dim"),
            None if mask is None else rearrange(mask, "image patch -> image 1 patch"),
        )

    def summarise(
        self,
        patches: Float[Tensor, "video frame patch dim"],
        mask: Bool[Tensor, "video frame"] | Bool[Tensor, "video frame patch"] | None = None,
    ) -> Float[Tensor, "video token width"]:
        """Summarise videos; frames, or patches of frames, where `mask` is False change nothing.

        Raises:
            ValueError: There are more frames than learned positions, or several without any.
        """
        tokens = add_frame_positions(patches, self.frame_positions)
        seen = None if mask is None else patch_mask(mask, num_patches=patches.shape[2])
        latents = repeat(self.latents, "latent dim -> video latent dim", video=patches.shape[0])
        for layer in self.layers:
            latents = layer(latents, tokens, seen)
        return self.map(self.norm(latents))
