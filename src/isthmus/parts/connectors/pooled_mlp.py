"""An MLP on every token, then learned queries that pool them: the baseline of AnyMAL's latent transformer."""

from typing import final

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.nn.attention import CrossAttention
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.mlp import MLPConnector, MLPShape


@final
class PooledMLP(Connector):
    """`num_queries` tokens out of any number of patches: norm, two linear layers, one attention, norm."""

    def __init__(
        self, *, vision_width: int, language_width: int, num_queries: int, num_heads: int = 16
    ) -> None:
        """Build the layers.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings; the heads divide it.
            num_queries: Learned queries, which is the number of visual tokens.
            num_heads: Heads of the pooling attention.
        """
        super().__init__()
        if language_width % num_heads:
            raise ValueError(
                f"a width of {language_width} cannot be split over {num_heads} heads; choose a divisor of the width"
            )
        self.tokens = MLPConnector(
            vision_width=vision_width, language_width=language_width, shape=MLPShape(norm=True)
        )
        self.queries = nn.Parameter(torch.randn(num_queries, language_width) * 0.02)
        self.attention = CrossAttention(
            width=language_width,
            context_width=language_width,
            num_heads=num_heads,
            head_width=language_width // num_heads,
            bias=True,
        )
        self.norm = nn.LayerNorm(language_width)

    def num_tokens(self, num_patches: int) -> int:
        """The number of queries, whatever the number of patches."""
        return self.queries.shape[0]

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Map each token, then pool."""
        queries = repeat(self.queries, "query dim -> image query dim", image=patches.shape[0])
        return self.norm(self.attention(queries, self.tokens(patches)))
