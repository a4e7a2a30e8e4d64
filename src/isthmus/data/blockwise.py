"""Hiding patches block by block (Bao et al., 2022, Algorithm 1)."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from isthmus.core.sizes import Size

ATTEMPTS = 10
"""Tries to place one more block before the mask is left as it is."""

LEAST_BLOCK = 16
LEAST_ASPECT = 0.3


def blockwise_mask(
    grid: Size, target: int, generator: torch.Generator, *, least: int = LEAST_BLOCK
) -> Bool[Tensor, " patch"]:
    """True where a patch is hidden; never more than `target`, sometimes a few less, as in the published code.

    Blocks are drawn with a random area, from `least` patches to what is still to be hidden, and a random ratio of
    sides, log-uniform from 0.3 to 1 / 0.3. A block is kept if it hides at least one more patch and not too many.

    Args:
        grid: Height and width in patches.
        target: Most patches that are hidden.
        generator: Where the draws come from.
        least: Fewest patches of a block.
    """
    mask = torch.zeros(grid.height, grid.width, dtype=torch.bool)
    while (left := target - int(mask.sum())) > 0:
        if not _add_block(mask, left, generator, least):
            break
    return mask.flatten()


def _add_block(mask: Bool[Tensor, "height width"], left: int, generator: torch.Generator, least: int) -> bool:
    for _ in range(ATTEMPTS):
        area = _between(least, left, generator)  # less than `least` where less is left
        bound = math.log(LEAST_ASPECT)
        aspect = math.exp(_between(bound, -bound, generator))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < mask.shape[0] and 0 < width < mask.shape[1]):
            continue
        top = _below(mask.shape[0] - height + 1, generator)
        beside = _below(mask.shape[1] - width + 1, generator)
        block = mask[top : top + height, beside : beside + width]
        if 0 < int((~block).sum()) <= left:
            block.fill_(value=True)
            return True
    return False


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _below(number: int, generator: torch.Generator) -> int:
    return int(torch.randint(number, (), generator=generator))
