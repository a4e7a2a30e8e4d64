"""AnyRes: which grid of tiles a picture gets, and which of its visual tokens are kept (LLaVA-NeXT, Liu et al., 2024).

A picture is scaled to fit a grid of tiles, centred on black, and cut; in front of the tiles stands the whole picture,
squashed to one tile: the thumbnail. Visual tokens that lie in the black are left out, and one learned newline ends
each row of those that stay. Everything here is arithmetic on sizes, height before width; no picture is touched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.core.sizes import Size

_DIGITS = 7
"""A scaled side is rounded to this many decimals before its fraction is cut off, as in transformers: on another
processor 23.999999999 would otherwise lose a row."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How one picture was cut.

    Attributes:
        picture: Its size before, in pixels.
        grid: Rows and columns of tiles; None where only the thumbnail is looked at.
    """

    picture: Size
    grid: Size | None

    @property
    def num_tiles(self) -> int:
        """Tiles of the grid and the thumbnail."""
        return 1 + (self.grid.area if self.grid is not None else 0)

    def kept(self, tile_tokens: Size) -> tuple[range, range]:
        """Rows and columns of the grid's visual tokens that show the picture, not the black around it.

        Args:
            tile_tokens: Rows and columns of visual tokens that one tile gives.
        """
        if self.grid is None:
            return range(0), range(0)
        rows, columns = self.grid.height * tile_tokens.height, self.grid.width * tile_tokens.width
        if self.picture.width / self.picture.height > columns / rows:
            return _centre(rows, self.picture.height * (columns / self.picture.width)), range(columns)
        return range(rows), _centre(columns, self.picture.width * (rows / self.picture.height))

    def num_tokens(self, tile_tokens: Size) -> int:
        """Visual tokens of the picture: thumbnail, kept tokens, and a newline after each of their rows.

        A thumbnail without a grid gets one newline.

        Args:
            tile_tokens: Rows and columns of visual tokens that one tile gives.
        """
        if self.grid is None:
            return tile_tokens.area + 1
        rows, columns = self.kept(tile_tokens)
        return tile_tokens.area + len(rows) * (len(columns) + 1)


def _centre(length: int, shown: float) -> range:
    """The middle of a side; an odd excess leaves one position of black, as published."""
    padding = (length - int(round(shown, _DIGITS))) // 2
    return range(padding, length - padding)


def best_grid(picture: Size, *, tile: Size, grids: Sequence[Size]) -> Size:
    """The grid in which most of the picture's own pixels survive; then the one that wastes least; then the first.

    Args:
        picture: Height and width in pixels.
        tile: Height and width of a tile in pixels.
        grids: Rows and columns of tiles, at least one.
    """

    def merit(grid: Size) -> tuple[int, int]:
        canvas = canvas_of(grid, tile)
        scale = min(canvas.width / picture.width, canvas.height / picture.height)
        effective = min(int(picture.width * scale) * int(picture.height * scale), picture.area)
        return effective, effective - canvas.area

    return max(grids, key=merit)


def canvas_of(grid: Size, tile: Size) -> Size:
    """Height and width in pixels of all tiles together."""
    return Size(height=grid.height * tile.height, width=grid.width * tile.width)


def fitted(picture: Size, canvas: Size) -> Size:
    """The largest size of the picture's ratio of sides within a canvas; a fraction of a pixel counts as one."""
    across, along = canvas.width / picture.width, canvas.height / picture.height
    if across < along:
        return Size(height=min(math.ceil(picture.height * across), canvas.height), width=canvas.width)
    return Size(height=canvas.height, width=min(math.ceil(picture.width * along), canvas.width))
