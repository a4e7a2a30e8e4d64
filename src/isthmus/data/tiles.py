"""Cutting pictures into tiles (LLaVA-NeXT, Liu et al., 2024): thumbnail first, then the grid row by row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from isthmus.core.sizes import Size
from isthmus.core.tiling import Cut, best_grid, canvas_of, fitted
from isthmus.data.images import ImageProcessor


@dataclass(frozen=True, kw_only=True)
class Tiler:
    """Cuts pictures for one vision encoder.

    Attributes:
        images: Scales and normalises; its `size` is that of a tile.
        grids: Rows and columns of tiles that a picture may get; on a tie the first wins.
    """

    images: ImageProcessor
    grids: tuple[Size, ...]

    def cut(self, picture: Size) -> Cut:
        """How a picture of this size is cut."""
        return Cut(picture=picture, grid=best_grid(picture, tile=self.images.size, grids=self.grids))

    def __call__(self, picture: Image.Image) -> tuple[Float[Tensor, "tile channel height width"], Cut]:
        """The tiles of one RGB picture, and how it was cut. The black around it is cut and normalised with it."""
        cut = self.cut(Size(height=picture.height, width=picture.width))
        assert cut.grid is not None
        tile = self.images.size
        canvas = canvas_of(cut.grid, tile)
        scaled = self.images.scaled(picture, fitted(cut.picture, canvas))
        whole = Image.new("RGB", (canvas.width, canvas.height))
        whole.paste(scaled, ((canvas.width - scaled.width) // 2, (canvas.height - scaled.height) // 2))
        tiles = [
            whole.crop((left, top, left + tile.width, top + tile.height))
            for top in range(0, canvas.height, tile.height)
            for left in range(0, canvas.width, tile.width)
        ]
        pictures = [self.images.scaled(picture, tile), *tiles]
        return torch.stack([self.images.normalised(one) for one in pictures]), cut
