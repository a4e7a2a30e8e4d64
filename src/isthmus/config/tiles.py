"""How a recipe has its pictures cut into tiles."""

from typing import Annotated

from pydantic import Field, field_validator

from isthmus.config.base import Count, Mistake, Settings, refuse

Grid = Annotated[tuple[Count, Count], Field(strict=False)]
"""Rows and columns of tiles."""

LLAVA_NEXT_GRIDS: tuple[Grid, ...] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""336x672, 672x336, 672x672, 1008x336 and 336x1008 (height x width) for tiles of 336 pixels."""


class Tiles(Settings):
    """Pictures of any size as a thumbnail and a grid of tiles, joined by a learned newline (LLaVA-NeXT, 2024).

    A tile has the size of the vision encoder's pictures. The newline is the part `newline`.
    """

    grids: Annotated[tuple[Grid, ...], Field(strict=False, min_length=1)] = LLAVA_NEXT_GRIDS
    """Rows and columns of tiles: a picture gets what keeps most of it, then what wastes least, then the first."""

    @field_validator("grids")
    @classmethod
    def _check_grids(cls, grids: tuple[Grid, ...]) -> tuple[Grid, ...]:
        again = [at for at, grid in enumerate(grids) if grid in grids[:at]]
        refuse(
            [Mistake(path=(at,), found=f"{list(grids[at])} again", allowed="each grid once") for at in again]
        )
        return grids
