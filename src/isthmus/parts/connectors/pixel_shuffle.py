"""Two-dimensional pixel shuffle: neighbouring patches become one longer token (nanoVLM's order of channels)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.nn.pooling import square_side
from isthmus.parts.connectors.connector import Connector


class PixelShuffleConnector(Connector):
    """`factor` x `factor` neighbours are joined and mapped by one linear layer; fewer tokens, nothing thrown away.

    The joined vector is ordered (row offset, column offset, channel).
    """

    def __init__(self, *, vision_width: int, language_width: int, factor: int, bias: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.map = nn.Linear(vision_width * factor**2, language_width, bias=bias)

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
