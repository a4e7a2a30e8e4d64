"""Which patches of a picture the vision encoder sees, drawn with the data so that they travel in the batch."""

import torch
from jaxtyping import Int
from torch import Tensor


def random_kept(num_patches: int, fraction: float, generator: torch.Generator) -> Int[Tensor, " kept"]:
    """Places of the patches that stay, in reading order (He et al., 2022, section 3; Li et al., 2023, section 3).

    Args:
        num_patches: Patches of the whole grid.
        fraction: Share that stays, in (0, 1]; rounded down, as the published code does.
        generator: Where the draw comes from.

    Raises:
        ValueError: No patch would stay.
    """
    num_kept = int(num_patches * fraction)
    if num_kept < 1:
        raise ValueError(
            f"{fraction:g} of {num_patches} patches is less than one; keep a share of at least {1 / num_patches:g}"
        )
    return torch.randperm(num_patches, generator=generator)[:num_kept].sort().values
