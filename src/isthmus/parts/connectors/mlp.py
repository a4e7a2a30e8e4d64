"""A small multi-layer perceptron a token, as in LLaVA-1.5 (Liu et al., 2023b, section 3.2: two layers with GELU)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.parts.connectors.connector import Connector


class MLPConnector(Connector):
    """`depth` linear layers with exact GELU between them; optionally a norm on the features and learned positions.

    LLaVA-1.5 has neither norm nor positions. A convolutional encoder's features need both: their scale is far from a
    language model's embeddings, and nothing in them says where on the grid they stand.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        depth: int = 2,
        hidden: int | None = None,
        norm: bool = False,
        num_positions: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings.
            depth: Number of linear layers, at least 1.
            hidden: Width between layers; `language_width` if None.
            norm: Put a layer norm in front.
            num_positions: Add one learned vector to each of this many tokens; None adds none.
            dropout: Fraction of feature numbers dropped in training.
        """
        super().__init__()
        widths = [vision_width, *[hidden or language_width] * (depth - 1), language_width]
        self.norm = nn.LayerNorm(vision_width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for before, after in zip(widths[1:], widths[2:], strict=False):
            layers += [nn.GELU(), nn.Linear(before, after)]
        self.layers = nn.Sequential(*layers)
        self.positions = (
            None
            if num_positions is None
            else nn.Parameter(nn.init.trunc_normal_(torch.empty(num_positions, language_width), std=0.02))
        )

    def num_tokens(self, num_patches: int) -> int:
        """As many as patches.

        Raises:
            ValueError: The connector has learned positions for another number of patches.
        """
        if self.positions is not None and num_patches != self.positions.shape[0]:
            raise ValueError(
                f"this connector has {self.positions.shape[0]} learned positions but the encoder gives {num_patches} patches"
            )
        return num_patches

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Map each token."""
        tokens = self.layers(self.dropout(self.norm(patches)))
        return tokens if self.positions is None else tokens + self.positions
