"""Two-dimensional pixel shuffle: neighbouring patches become one longer token (nanoVLM's order of channels)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.nn.pooling import square_side
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.mlp import MLPConnector, MLPShape


class PixelShuffleConnector(Connector):
    """`factor` x `factor` neighbours are joined and mapped; fewer tokens, nothing thrown away.

    The joined vector is ordered (row offset, column offset, channel).
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        factor: int,
        bias: bool = False,
        mlp: MLPShape | None = None,
        num_positions: int | None = None,
    ) -> None:
        """Build the layers.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the language model's embeddings.
            factor: Patches a side that become one token.
            bias: Whether the one linear layer has a bias.
            mlp: Layers that take its place (InternVL 1.5, Chen et al., 2024, section 3.1: norm and two of them).
            num_positions: Add one learned vector to each of this many tokens, with `mlp`; None adds none.
        """
        super().__init__()
        self.factor = factor
        width = vision_width * factor**2
        self.map: nn.Module = (
            nn.Linear(width, language_width, bias=bias)
            if mlp is None
            else MLPConnector(
                vision_width=width, language_width=language_width, shape=mlp, num_positions=num_positions
            )
        )

    def num_tokens(self, num_patches: int) -> int:
        """`num_patches / factor**2`.

        Raises:
            ValueError: The patches are no square grid, or `factor` does not divide its side.
        """
        side = square_side(num_patches)
        if side % self.factor:
            raise ValueError(
                f"pixel shuffle by {self.factor} needs a grid whose side {self.factor} divides, "
                f"but the encoder gives {num_patches} patches, {side} a side; choose another factor"
            )
        return (side // self.factor) ** 2

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Join and map."""
        self.num_tokens(patches.shape[1])
        joined = rearrange(
            patches,
            "image (row r column c) dim -> image (row column) (r c dim)",
            r=self.factor,
            c=self.factor,
            row=square_side(patches.shape[1]) // self.factor,
        )
        return self.map(joined)
