"""Relative positions: what is added to attention scores by how far two patches lie apart."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.core.sizes import Size


@final
class RelativeBias(nn.Module):
    """One learned number for each head and each offset in rows and columns (Bao et al., 2022; BEiT's published code).

    Three more stand for pairs with CLS: from CLS to a patch, from a patch to CLS, from CLS to itself. All start at 0.

    Args:
        grid: Height and width of the grid, in patches; other grids are refused.
        num_heads: Attention heads.
    """

    def __init__(self, *, grid: Size, num_heads: int) -> None:
        super().__init__()
        self.grid = grid
        offsets = (2 * grid.height - 1) * (2 * grid.width - 1)
        self.table = nn.Parameter(torch.zeros(offsets + 3, num_heads))
        self.register_buffer("index", relative_index(grid), persistent=False)

    def forward(self, grid: Size) -> Float[Tensor, "head token key"]:
        """What is added to the scores of CLS and all patches.

        Raises:
            ValueError: The grid is another one.
        """
        if grid != self.grid:
            raise ValueError(
                f"relative positions were made for {self.grid.height} x {self.grid.width} patches, not for "
                f"{grid.height} x {grid.width}; use pictures of the size that the encoder was made for"
            )
        return self.table[self.get_buffer("index")].permute(2, 0, 1)


def relative_index(grid: Size) -> Int[Tensor, "token key"]:
    """The row of the table for each pair of tokens, CLS first."""
    rows, columns = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten() + grid.height - 1
    right = columns.flatten()[:, None] - columns.flatten() + grid.width - 1
    wide = 2 * grid.width - 1
    offsets = (2 * grid.height - 1) * wide
    index = torch.full((grid.area + 1, grid.area + 1), offsets + 2)
    index[1:, 1:] = down * wide + right
    index[0, 1:] = offsets
    index[1:, 0] = offsets + 1
    return index
