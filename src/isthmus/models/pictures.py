"""Reading a batch's pictures: from the feature store where it was used, else through the vision encoder."""

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.parts.vision.vit import ViT


def patch_tokens(vision: VisionEncoder, batch: Batch) -> Float[Tensor, "image patch dim"] | None:
    """The tokens of the batch's pictures, or None when it has none. A frozen encoder keeps no graph.

    Raises:
        ValueError: The batch has stored features although the encoder learns.
    """
    _check_choices(vision, batch)
    learns = any(parameter.requires_grad for parameter in vision.parameters())
    if batch.features is not None:
        if learns and vision.training:
            raise ValueError(
                "the batch holds stored features, but the vision encoder learns; encode live instead"
            )
        return batch.features
    if batch.pixels is None:
        return None
    pixels = batch.pixels if batch.alpha is None else torch.cat([batch.pixels, batch.alpha], dim=1)
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        return vision(pixels, batch.kept) if isinstance(vision, ViT) else vision(pixels)


def _check_choices(vision: VisionEncoder, batch: Batch) -> None:
    """Refuse patches that are left out, or marked regions, where the encoder does not see them."""
    if batch.kept is not None and (batch.features is not None or not isinstance(vision, ViT)):
        raise ValueError(
            "the batch leaves patches out, which only a ViT of our own that encodes live can do; use a vision encoder "
            "of kind vit without stored features, or patches_kept: null"
        )
    if batch.alpha is not None and batch.features is not None:
        raise ValueError(
            "the batch marks regions, but its features are stored ones that know none; encode live instead"
        )
