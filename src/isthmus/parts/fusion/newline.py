"""Joining the visual tokens of a picture's tiles, with a learned newline (LLaVA-NeXT, Liu et al., 2024)."""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.sizes import Size
from isthmus.core.tiling import Cut
from isthmus.nn.pooling import square_side


class Newline(nn.Module):
    """The vector that ends each row of a picture's visual tokens, and the order that it keeps.

    A picture becomes the tokens of its thumbnail, without newlines, and then the rows of its grid without the black
    around the picture, each row followed by the newline. A thumbnail alone gets one newline after it.

    Args:
        language_width: Size of the language model's embeddings. The vector starts with deviation 1 / sqrt(width).
    """

    def __init__(self, *, language_width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(language_width) * language_width**-0.5)

    def forward(
        self, tiles: Float[Tensor, "tile token dim"], cuts: Sequence[Cut]
    ) -> Float[Tensor, "visual_token dim"]:
        """Visual tokens of all pictures, in reading order.

        Args:
            tiles: What the connector gave for the thumbnail and tiles of the first picture, then of the second.
            cuts: How each picture was cut.

        Raises:
            ValueError: There are more or fewer tiles than the pictures were cut into, or a tile's tokens are no square.
        """
        num_tiles = sum(cut.num_tiles for cut in cuts)
        if tiles.shape[0] != num_tiles:
            raise ValueError(
                f"the pictures were cut into {num_tiles} tiles, thumbnails included, but {tiles.shape[0]} were encoded"
            )
        side = square_side(tiles.shape[1])
        pictures = tiles.split([cut.num_tiles for cut in cuts])
        return torch.cat([self._joined(one, cut, side) for one, cut in zip(pictures, cuts, strict=True)])

    def _joined(
        self, tiles: Float[Tensor, "tile token dim"], cut: Cut, side: int
    ) -> Float[Tensor, "visual_token dim"]:
        if cut.grid is None:
            return torch.cat([tiles[0], rearrange(self.vector.to(tiles.dtype), "dim -> 1 dim")])
        whole = rearrange(
            tiles[1:],
            "(row column) (r c) dim -> (row r) (column c) dim",
            row=cut.grid.height,
            r=side,
        )
        rows, columns = cut.kept(Size(height=side, width=side))
        shown = whole[rows.start : rows.stop, columns.start : columns.stop]
        ends = repeat(self.vector.to(tiles.dtype), "dim -> row 1 dim", row=len(rows))
        lines = rearrange(torch.cat([shown, ends], dim=1), "row column dim -> (row column) dim")
        return torch.cat([tiles[0], lines])
