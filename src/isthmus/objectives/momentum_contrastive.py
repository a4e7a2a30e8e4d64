"""Contrast with what slow copies of both encoders give and gave, and with soft targets (Li et al., 2021 and 2022)."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Remembers, Term
from isthmus.objectives.representations import representations_of, similarities


@final
class MomentumContrastive:
    """Each picture must find its text among those of the step and of earlier ones, and each text its picture.

    What is searched among are vectors of the slow copies, which have no gradient. A share of each target is not one
    hot but what the copies themselves find alike, because texts of other pictures may fit too (Li et al., 2021,
    equation 6).
    """

    def __init__(self, model: Remembers) -> None:
        """Read scale, slow vectors and the share of soft targets from `model`."""
        self.model = model

    def counts(self, batch: Batch) -> dict[str, int]:
        """Rows."""
        return {"contrastive": len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `contrastive`: this batch's part of the mean over both directions, times the step's pictures."""
        found = representations_of(encoded, batch)
        slow, scale = self.model.slow_vectors(batch), self.model.logit_scale()
        soft = self.model.soft_share(progress)
        texts = torch.cat([slow.texts, slow.earlier_texts])
        images = torch.cat([slow.images, slow.earlier_images])
        own_images = slice(slow.first_image, slow.first_image + len(found.image_views))
        own_texts = slice(slow.first_text, slow.first_text + len(found.text_vectors))
        belongs = _belonging(found.image_of_text, len(found.image_views))
        to_text = scale * similarities(found.image_views, texts)
        to_image = scale * found.text_vectors @ images.T
        with torch.no_grad():
            text_targets = _targets(belongs, scale * slow.images[own_images] @ texts.T, soft, own_texts)
            image_targets = _targets(belongs.T, scale * slow.texts[own_texts] @ images.T, soft, own_images)
        # Shares of the step's pictures and texts, which are 1 where one process has all of them.
        lost = functional.cross_entropy(to_text.float(), text_targets) * (len(to_text) / len(slow.images))
        missed = functional.cross_entropy(to_image.float(), image_targets) * (len(to_image) / len(slow.texts))
        return {"contrastive": Term(sum=(lost + missed) / 2 * len(slow.images), count=len(batch))}


def _belonging(own: Int[Tensor, " text"], num_images: int) -> Bool[Tensor, "image text"]:
    every = torch.arange(num_images, device=own.device)
    return rearrange(every, "image -> image 1") == own


def _targets(
    belongs: Bool[Tensor, "one other"], alike: Float[Tensor, "one every"], soft: float, others: slice
) -> Float[Tensor, "one every"]:
    """What belongs together shares one part of the target evenly; the copies' softmax has the other.

    `others` says which of all candidates the batch's own are.
    """
    hard = torch.zeros_like(alike, dtype=torch.float32)
    hard[:, others] = belongs / belongs.sum(dim=1, keepdim=True)
    return soft * alike.float().softmax(dim=1) + (1 - soft) * hard
