"""The symmetric contrastive loss (Radford et al., 2021, Figure 3), for one or several views an image."""

from dataclasses import dataclass
from typing import final

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Contrasts, Encoded, Progress, Term


@dataclass(frozen=True, kw_only=True)
class Representations:
    """What the loss is a function of; cached gradients and gathering across ranks cut here."""

    image_views: Float[Tensor, "image view dim"]
    text_vectors: Float[Tensor, "text dim"]
    image_of_text: Int[Tensor, " text"]


def similarities(representations: Representations) -> Float[Tensor, "image text"]:
    """Cosine similarity of each pair: the largest over an image's views (Li et al., 2023, section 3.2)."""
    products = einsum(
        representations.image_views,
        representations.text_vectors,
        "image view dim, text dim -> image text view",
    )
    return reduce(products, "image text view -> image text", "max")


@final
class Contrastive:
    """Each picture must find its text among all texts of the batch, and each text its picture."""

    def __init__(self, model: Contrasts, *, label_smoothing: float = 0.0) -> None:
        """Read the scale from `model`; `label_smoothing` spreads this fraction evenly over the batch."""
        self.model = model
        self.label_smoothing = label_smoothing

    def counts(self, batch: Batch) -> dict[str, int]:
        """Rows."""
        return {"contrastive": len(batch)}

    def representations(self, encoded: Encoded, batch: Batch) -> Representations:
        """What the loss needs of a forward pass."""
        assert encoded.image_views is not None
        assert encoded.text_vectors is not None
        num_texts = encoded.text_vectors.shape[0]
        own = batch.image_of_text if batch.image_of_text is not None else torch.arange(num_texts)
        return Representations(
            image_views=encoded.image_views,
            text_vectors=encoded.text_vectors,
            image_of_text=own.to(encoded.text_vectors.device),
        )

    def loss(self, representations: Representations) -> Float[Tensor, ""]:
        """Mean over both directions and the batch.

        A text's target is its picture. A picture's target is shared evenly by its texts: with one text each that is the
        published loss; with five, each of the five is pulled and none pushes the others away.

        Raises:
            ValueError: The batch has a single picture: with nothing to contrast the loss is zero for any model.
        """
        num_images = representations.image_views.shape[0]
        if num_images < 2:
            raise ValueError(
                "a contrastive batch has 1 picture; at least 2 are needed, else the loss is zero for any model"
            )
        logits = similarities(representations) * self.model.logit_scale()
        own = representations.image_of_text
        to_image = functional.cross_entropy(logits.T, own, label_smoothing=self.label_smoothing)
        belongs = functional.one_hot(own, num_images).T.to(logits.dtype)
        shares = belongs / belongs.sum(dim=1, keepdim=True)
        to_text = functional.cross_entropy(logits, shares, label_smoothing=self.label_smoothing)
        return (to_text + to_image) / 2

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `contrastive`."""
        del progress
        total = self.loss(self.representations(encoded, batch)) * len(batch)
        return {"contrastive": Term(sum=total, count=len(batch))}
