"""Reading a batch's pictures: from the feature store where it was used, else through the vision encoder."""

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.parts.vision.encoder import VisionEncoder


def patch_tokens(vision: VisionEncoder, batch: Batch) -> Float[Tensor, "image patch dim"] | None:
    """The tokens of the batch's pictures, or None when it has none. A frozen encoder keeps no graph.

    Raises:
        ValueError: The batch has stored features although the encoder learns.
    """
    learns = any(parameter.requires_grad for parameter in vision.parameters())
    if batch.features is not None:
        if learns and vision.training:
            raise ValueError(
                "the batch holds stored features, but the vision encoder learns; encode live instead"
            )
        return batch.features
    if batch.pixels is None:
        return None
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        return vision(batch.pixels)
