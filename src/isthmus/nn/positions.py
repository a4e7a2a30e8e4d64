"""Learned positions on a grid, interpolated when a picture has another size than in training."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.sizes import Size


class GridPositions(nn.Module):
    """One learned vector a grid cell; other grids get a bicubic interpolation of them."""

    def __init__(self, *, grid: Size, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(grid.area, width), std=0.02))

    def forward(self, grid: Size) -> Float[Tensor, "patch dim"]:
        """The position vectors of a grid, row by row."""
        if grid == self.grid:
            return self.table
        table = rearrange(self.table, "(row column) dim -> 1 dim row column", row=self.grid.height)
        resized = functional.interpolate(
            table, size=tuple(grid), mode="bicubic", antialias=True, align_corners=False
        )
        return rearrange(resized, "1 dim row column -> (row column) dim")
