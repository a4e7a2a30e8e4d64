"""Visual tokens of pictures and of clips, whose frames the encoder sees one by one and most connectors all at once."""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.mapping_network import FrameTransformer, MappingMLP
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler


def media_tokens(
    connector: Connector, patches: Float[Tensor, "frame patch dim"], frames_per_image: Sequence[int]
) -> Float[Tensor, "image token width"]:
    """Visual tokens of each medium of a batch.

    Args:
        connector: From patches to visual tokens.
        patches: Tokens of all frames, in reading order.
        frames_per_image: Frames of each medium; empty where each is a single picture.

    Raises:
        ValueError: Frames came to a connector that takes single pictures, or more of them than it has positions for.
    """
    if not frames_per_image:
        return connector(patches)
    if not isinstance(connector, PerceiverResampler):
        raise ValueError(
            f"the batch holds clips, but a {type(connector).__name__} takes single pictures; "
            "use a perceiver_resampler with connector.frames"
        )
    return connector.summarise(*padded_frames(patches, frames_per_image))


def spliced_tokens(
    connector: Connector, patches: Float[Tensor, "frame patch dim"], frames_per_image: Sequence[int]
) -> tuple[Float[Tensor, "visual_token width"], tuple[int, ...]]:
    """Visual tokens of all media in reading order, and how many each gives; mapping networks give some for each frame.

    Args:
        connector: From patches to visual tokens.
        patches: Tokens of all frames, in reading order.
        frames_per_image: Frames of each medium; empty where each is a single picture.

    Raises:
        ValueError: As `media_tokens`.
    """
    if not frames_per_image or not isinstance(connector, MappingMLP | FrameTransformer):
        visual = media_tokens(connector, patches, frames_per_image)
        return rearrange(visual, "image token width -> (image token) width"), (visual.shape[1],) * len(visual)
    videos, mask = padded_frames(patches, frames_per_image)
    tokens, num_prefix = connector.of_frames(videos, mask), connector.num_tokens(patches.shape[1])
    there = repeat(mask, "video frame -> video (frame token)", token=num_prefix)
    return tokens[there], tuple(num_prefix * frames for frames in frames_per_image)


def padded_frames(
    patches: Float[Tensor, "frame patch dim"], frames_per_image: Sequence[int]
) -> tuple[Float[Tensor, "image longest patch dim"], Bool[Tensor, "image longest"]]:
    """Frames sorted into their media, shorter ones filled up with zeros; the mask is False on what was filled up.

    Raises:
        ValueError: There are more or fewer frames than the media have.
    """
    if sum(frames_per_image) != len(patches):
        raise ValueError(
            f"the batch has {len(patches)} frames, but its layout {sum(frames_per_image)}; "
            "the processor and the model disagree"
        )
    held = torch.tensor(frames_per_image, device=patches.device)
    places = torch.arange(max(frames_per_image), device=patches.device)
    mask = rearrange(places, "longest -> 1 longest") < rearrange(held, "image -> image 1")
    videos = patches.new_zeros(*mask.shape, *patches.shape[1:])
    videos[mask] = patches
    return videos, mask
