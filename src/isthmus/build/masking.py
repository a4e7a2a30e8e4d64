"""How a masked image model's patches are hidden."""

from functools import partial
from typing import assert_never

from isthmus.build.images import patches_of
from isthmus.config.masked import BlockwiseMasking, MaskedImageModel, RandomMasking
from isthmus.data.masked import Draw, draw_blocks, draw_patches


def build_masking(config: MaskedImageModel) -> Draw:
    """A function that draws which patches of a picture are seen and which are hidden."""
    grid = patches_of(config)
    match config.masking:
        case RandomMasking(masked=share):
            return partial(draw_patches, grid.area, share)
        case BlockwiseMasking(patches=most, least_block=least):
            return partial(draw_blocks, grid, most, least)
        case _:
            assert_never(config.masking)
