"""Mapping networks: one vector a picture becomes a prefix of visual tokens (Mokady et al., 2021, section 3.2).

A picture's tokens are averaged first, so that a pooled vector is taken as it is and a grid of patches becomes one.
"""

from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.nn.feed_forward import Activation
from isthmus.nn.transformer import Transformer, TransformerShape
from isthmus.parts.connectors.connector import Connector


def frame_means(
    patches: Float[Tensor, "video frame patch dim"], mask: Bool[Tensor, "video frame"] | None = None
) -> Float[Tensor, "video frame dim"]:
    """One vector a frame; zero where `mask` is False."""
    means = patches.mean(dim=2)
    return means if mask is None else means * rearrange(mask, "video frame -> video frame 1")


@final
class MappingMLP(Connector):
    """Two linear layers with tanh between them from one vector to `num_prefix` tokens.

    ClipCap's has a hidden layer half as wide as the prefix; VisualTextModel's gives one token a frame.
    """

    def __init__(
        self, *, vision_width: int, language_width: int, num_prefix: int, hidden: int | None = None
    ) -> None:
        """Build the layers.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings.
            num_prefix: Visual tokens a picture gives.
            hidden: Width between the layers; None takes half of the prefix (ClipCap).
        """
        super().__init__()
        inner = hidden if hidden is not None else language_width * num_prefix // 2
        self.num_prefix = num_prefix
        self.layers = nn.Sequential(
            nn.Linear(vision_width, inner), nn.Tanh(), nn.Linear(inner, language_width * num_prefix)
        )

    def num_tokens(self, num_patches: int) -> int:
        """The prefix, whatever the number of patches."""
        return self.num_prefix

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Map each picture's mean."""
        return rearrange(
            self.layers(patches.mean(dim=1)),
            "image (token width) -> image token width",
            token=self.num_prefix,
        )

    def of_frames(
        self,
        patches: Float[Tensor, "video frame patch dim"],
        mask: Bool[Tensor, "video frame"] | None = None,
    ) -> Float[Tensor, "video token width"]:
        """The prefix of each frame, one after the other; a frame where `mask` is False counts as zeros."""
        return rearrange(
            self.layers(frame_means(patches, mask)),
            "video frame (token width) -> video (frame token) width",
            token=self.num_prefix,
        )


@dataclass(frozen=True, kw_only=True)
class MappingShape:
    """Sizes of a mapping transformer; ClipCap's is the default.

    Attributes:
        num_prefix: Learned tokens, which is the number of visual tokens.
        num_vectors: Tokens that the picture's vector is unfolded to.
        num_layers: Blocks.
        num_heads: Heads.
        ffn_multiple: Feed-forward width as a multiple of the token's.
        activation: What stands inside the feed-forward.
    """

    num_prefix: int = 10
    num_vectors: int = 10
    num_layers: int = 8
    num_heads: int = 8
    ffn_multiple: int = 2
    activation: Activation = "relu"


@final
class MappingTransformer(Connector):
    """The vector is unfolded to tokens; learned tokens stand after them, read them, and leave as the prefix.

    Queries, keys and values have no biases; the other layers do (ClipCap's published code). There is no last norm.
    """

    def __init__(self, *, vision_width: int, language_width: int, shape: MappingShape) -> None:
        """Build the blocks, as wide as the language model.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings; the heads divide it.
            shape: The blocks.
        """
        super().__init__()
        self.num_vectors = shape.num_vectors
        self.map = nn.Linear(vision_width, shape.num_vectors * language_width)
        self.prefix = nn.Parameter(torch.randn(shape.num_prefix, language_width))
        self.transformer = Transformer(
            TransformerShape(
                width=language_width,
                num_layers=shape.num_layers,
                num_heads=shape.num_heads,
                ffn_multiple=float(shape.ffn_multiple),
                norm_eps=1e-5,
                qkv_bias=False,
                activation=shape.activation,
            )
        )

    def num_tokens(self, num_patches: int) -> int:
        """The prefix, whatever the number of patches."""
        return self.prefix.shape[0]

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Map each picture's mean."""
        vectors = rearrange(
            self.map(patches.mean(dim=1)),
            "image (vector width) -> image vector width",
            vector=self.num_vectors,
        )
        prefix = repeat(self.prefix, "token width -> image token width", image=patches.shape[0])
        return self.transformer(torch.cat([vectors, prefix], dim=1))[:, self.num_vectors :]


@final
class FrameTransformer(Connector):
    """Frames read each other: each frame's mean is a token of a transformer, and so many tokens leave.

    The mapper that VisualTextModel has beside its MLP (8 layers, 8 heads, a feed-forward of 2048); the encoder is as
    wide as the language model. Only the number of its parameters is published: the order of its norms is ours.
    """

    def __init__(self, *, vision_width: int, language_width: int, shape: TransformerShape) -> None:
        """Build the blocks.

        Raises:
            ValueError: Encoder, language model and blocks differ in width.
        """
        super().__init__()
        if not vision_width == language_width == shape.width:
            raise ValueError(
                f"a frame transformer keeps the width of its tokens, but the encoder gives {vision_width} and the "
                f"language model takes {language_width}; use another connector, such as mapping_mlp"
            )
        self.transformer = Transformer(shape)

    def num_tokens(self, num_patches: int) -> int:
        """One token a picture."""
        return 1

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """One token for each picture, seen as a video of one frame."""
        return self.of_frames(rearrange(patches, "image patch dim -> image 1 patch dim"))

    def of_frames(
        self,
        patches: Float[Tensor, "video frame patch dim"],
        mask: Bool[Tensor, "video frame"] | None = None,
    ) -> Float[Tensor, "video frame width"]:
        """One token a frame; frames where `mask` is False are not read."""
        return self.transformer(frame_means(patches, mask), mask)
