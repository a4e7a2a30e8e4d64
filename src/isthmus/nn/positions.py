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
        return resized(self.table, self.grid, grid)


def resized(table: Float[Tensor, "patch dim"], grid: Size, to: Size) -> Float[Tensor, "cell dim"]:
    """Position vectors of one grid for another: bicubic, with antialiasing."""
    cells = rearrange(table, "(row column) dim -> 1 dim row column", row=grid.height)
    changed = functional.interpolate(
        cells, size=tuple(to), mode="bicubic", antialias=True, align_corners=False
    )
    return rearrange(changed, "1 dim row column -> (row column) dim")


class FixedGridPositions(nn.Module):
    """Sines and cosines of column and row, never learned (He et al., 2022, appendix A.1; the published code's order).

    The first half of a vector says the column, the second the row; each is as many sines as cosines, of frequencies
    from 1 down to 1/10000.
    """

    def __init__(self, *, grid: Size, width: int, stored: bool = False) -> None:
        """Write the table of a grid.

        Args:
            grid: The usual height and width, in patches.
            width: Size of a vector.
            stored: Whether the table belongs to the weights, as in MAE's files, which hold and count it with a row of
                zeros for CLS in front.

        Raises:
            ValueError: The width cannot be split into sines and cosines of two coordinates.
        """
        super().__init__()
        if width % 4:
            raise ValueError(
                f"fixed positions need a width that 4 divides, not {width}; choose another width"
            )
        self.grid = grid
        self.width = width
        self.num_before = 1 if stored else 0
        table = torch.cat([torch.zeros(self.num_before, width), sincos_table(grid, width)])
        self.register_buffer("table", table, persistent=stored)

    def forward(self, grid: Size) -> Float[Tensor, "patch dim"]:
        """The position vectors of a grid, row by row."""
        table = self.get_buffer("table")[self.num_before :]
        return table if grid == self.grid else sincos_table(grid, self.width).to(table)

    @property
    def num_stored(self) -> int:
        """Numbers that the weights hold of it."""
        return self.get_buffer("table").numel() if self.num_before else 0


def sincos_table(grid: Size, width: int) -> Float[Tensor, "patch dim"]:
    """The sines and cosines of every cell of a grid, row by row."""
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(
        torch.arange(grid.height, dtype=torch.float64),
        torch.arange(grid.width, dtype=torch.float64),
        indexing="ij",
    )
    halves = []
    for coordinate in (columns, rows):
        angles = rearrange(coordinate, "row column -> (row column) 1") * frequencies
        halves += [angles.sin(), angles.cos()]
    return torch.cat(halves, dim=1).float()
