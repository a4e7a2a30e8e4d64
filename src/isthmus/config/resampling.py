"""Connectors whose number of visual tokens does not depend on the number of patches."""

from typing import Literal

from isthmus.config.base import Count, Settings

Activation = Literal["gelu", "squared_relu", "relu"]
"""What stands inside a feed-forward."""


class PerceiverResampler(Settings):
    """Learned queries that read the patches (Flamingo, Alayrac et al., 2022, section 3.1.1)."""

    kind: Literal["perceiver_resampler"] = "perceiver_resampler"
    latents: Count = 64
    """Queries, which is the number of visual tokens of a picture."""
    layers: Count = 6
    """Attention blocks."""
    heads: Count = 8
    """Attention heads."""
    head_dim: Count = 64
    """Entries of one head."""
    ffn_multiple: Count = 4
    """Width of the feed-forward layer as a multiple of the token width."""
    activation: Activation = "gelu"
    """What stands inside the feed-forward: OpenFlamingo has gelu, Flamingo squared_relu."""
    latent_keys: bool = True
    """Whether the queries are keys and values too, beside the patches."""
    final_norm: bool = True
    """Whether a layer norm ends it."""
    frames: Count | None = None
    """Most frames of a video, each with a learned position; null: single pictures, without one."""


class LatentTransformer(Settings):
    """Learned queries that read the patches and then each other, at the language model's width (AnyMAL)."""

    kind: Literal["latent_transformer"] = "latent_transformer"
    latents: Count = 64
    """Queries, which is the number of visual tokens of a picture."""
    layers: Count = 6
    """Blocks of cross-attention, self-attention and feed-forward."""
    heads: Count = 16
    """Attention heads; divide the language model's width."""
    ffn_multiple: Count = 4
    """Width of the feed-forward layer as a multiple of the language model's."""
    context_norm: bool = True
    """Whether each block normalises the patches before it reads them."""


class PooledMlp(Settings):
    """An MLP on every patch, then learned queries that pool them: the baseline of the latent transformer."""

    kind: Literal["pooled_mlp"] = "pooled_mlp"
    queries: Count = 64
    """Queries, which is the number of visual tokens of a picture."""
    heads: Count = 16
    """Attention heads; divide the language model's width."""


class MappingMlp(Settings):
    """The picture's mean becomes a prefix through two layers and tanh (ClipCap, Mokady et al., 2021)."""

    kind: Literal["mapping_mlp"] = "mapping_mlp"
    prefix: Count = 10
    """Visual tokens of a picture."""
    hidden: Count | None = None
    """Entries between the layers; null: half of the prefix's."""


class MappingTransformer(Settings):
    """The picture's mean is unfolded, and learned tokens read it and become the prefix (ClipCap)."""

    kind: Literal["mapping_transformer"] = "mapping_transformer"
    prefix: Count = 10
    """Visual tokens of a picture."""
    vectors: Count = 10
    """Tokens that the mean is unfolded to."""
    layers: Count = 8
    """Transformer blocks."""
    heads: Count = 8
    """Attention heads; divide the language model's width."""
    ffn_multiple: Count = 2
    """Width of the feed-forward layer as a multiple of the language model's."""
    activation: Activation = "relu"
    """What stands inside the feed-forward."""


class FrameTransformer(Settings):
    """A transformer over the means of a video's frames: one visual token a frame (VisualTextModel's other mapper)."""

    kind: Literal["frame_transformer"] = "frame_transformer"
    layers: Count = 8
    """Transformer blocks."""
    heads: Count = 8
    """Attention heads; divide the width, which encoder and language model must share."""
    ffn: Count = 2048
    """Width of the feed-forward layer."""
    activation: Activation = "relu"
    """What stands inside the feed-forward."""


Resampling = (
    PerceiverResampler | LatentTransformer | PooledMlp | MappingMlp | MappingTransformer | FrameTransformer
)
"""Connectors with a number of visual tokens of their own."""
