"""Videos for connectors: a learned position for each frame, and masks over frames or their patches."""

from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor


def add_frame_positions(
    patches: Float[Tensor, "video frame patch dim"], positions: Float[Tensor, "known dim"] | None
) -> Float[Tensor, "video token dim"]:
    """All patches of a video in one sequence, each with its frame's position (Alayrac et al., 2022, section 3.1.1).

    Args:
        patches: Tokens of each frame.
        positions: One vector a frame; None where only single pictures come.

    Raises:
        ValueError: There are more frames than positions, or several frames and no positions.
    """
    num_frames = patches.shape[1]
    if positions is not None:
        if num_frames > positions.shape[0]:
            raise ValueError(
                f"a video has {num_frames} frames, but this connector has learned positions for {positions.shape[0]}; "
                "take fewer frames or raise connector.frames"
            )
        patches = patches + rearrange(positions[:num_frames], "frame dim -> frame 1 dim")
    elif num_frames > 1:
        raise ValueError(
            f"a video of {num_frames} frames came to a connector without frame positions; "
            "its frames would be told apart by nothing: set connector.frames"
        )
    return rearrange(patches, "video frame patch dim -> video (frame patch) dim")


def patch_mask(
    mask: Bool[Tensor, "video frame"] | Bool[Tensor, "video frame patch"], *, num_patches: int
) -> Bool[Tensor, "video token"]:
    """A mask over the sequence that `add_frame_positions` makes; a mask over frames holds for all their patches."""
    if mask.ndim == 2:
        mask = repeat(mask, "video frame -> video frame patch", patch=num_patches)
    return rearrange(mask, "video frame patch -> video (frame patch)")
