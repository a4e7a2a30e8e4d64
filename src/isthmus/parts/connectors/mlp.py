"""A small multi-layer perceptron a token, as in LLaVA-1.5 (Liu et al., 2023b, section 3.2: two layers with GELU)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.nn.pooling import pool_grid, square_side
from isthmus.parts.connectors.connector import Connector


@dataclass(frozen=True, kw_only=True)
class MLPShape:
    """The layers of an MLP connector; LLaVA-1.5 is the default.

    Attributes:
        depth: Number of linear layers, at least 1, with exact GELU between them.
        hidden: Width between layers; None takes the language model's.
        norm: Whether a layer norm stands in front.
        dropout: Fraction of feature numbers dropped in training.
    """

    depth: int = 2
    hidden: int | None = None
    norm: bool = False
    dropout: float = 0.0


class MLPConnector(Connector):
    """The same layers on every token; optionally the grid is averaged to fewer tokens, and learned positions are added.

    LLaVA-1.5 has no norm, pooling or positions. A convolutional encoder's features want norm and positions:
    their scale is far from a language model's embeddings, and nothing in them says where on the grid they stand.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        shape: MLPShape | None = None,
        pool_side: int | None = None,
        num_positions: int | None = None,
    ) -> None:
        """Build the layers.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings.
            shape: The layers; None takes LLaVA-1.5's.
            pool_side: Average a square grid to this many tokens a side; None keeps all.
            num_positions: Add one learned vector to each of this many tokens; None adds none.
        """
        super().__init__()
        shape = shape or MLPShape()
        widths = [vision_width, *[shape.hidden or language_width] * (shape.depth - 1), language_width]
        self.pool_side = pool_side
        self.norm = nn.LayerNorm(vision_width) if shape.norm else nn.Identity()
        self.dropout = nn.Dropout(shape.dropout)
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for before, after in pairwise(widths[1:]):
            layers += [nn.GELU(), nn.Linear(before, after)]
        self.layers = nn.Sequential(*layers)
        self.positions = (
            None
            if num_positions is None
            else nn.Parameter(nn.init.trunc_normal_(torch.empty(num_positions, language_width), std=0.02))
        )

    def num_tokens(self, num_patches: int) -> int:
        """As many as patches, or the square of `pool_side`.

        Raises:
            ValueError: The grid cannot be pooled, or there are learned positions for another number of tokens.
        """
        num_tokens = num_patches
        if self.pool_side is not None:
            side = square_side(num_patches)
            if self.pool_side > side:
                raise ValueError(
                    f"this connector averages the grid to {self.pool_side} tokens a side, but the encoder gives {side} "
                    "patches a side; choose a smaller pool, or null"
                )
            num_tokens = self.pool_side**2
        if self.positions is not None and num_tokens != self.positions.shape[0]:
            raise ValueError(
                f"this connector has {self.positions.shape[0]} learned positions but {num_tokens} tokens would need one"
            )
        return num_tokens

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Map each token."""
        if self.pool_side is not None:
            patches = pool_grid(patches, self.pool_side)
        tokens = self.layers(self.dropout(self.norm(patches)))
        return tokens if self.positions is None else tokens + self.positions
