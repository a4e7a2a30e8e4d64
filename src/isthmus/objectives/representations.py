"""What losses that compare a whole batch are functions of: cached gradients and gathering across ranks cut here."""

from dataclasses import dataclass

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded


@dataclass(frozen=True, kw_only=True)
class Representations:
    """The vectors of a batch and which belong together.

    Attributes:
        image_views: One or more unit vectors an image.
        text_vectors: One unit vector a text.
        image_of_text: For each text the row of its picture.
    """

    image_views: Float[Tensor, "image view dim"]
    text_vectors: Float[Tensor, "text dim"]
    image_of_text: Int[Tensor, " text"]


def representations_of(encoded: Encoded, batch: Batch) -> Representations:
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


def similarities(
    image_views: Float[Tensor, "image view dim"], text_vectors: Float[Tensor, "text dim"]
) -> Float[Tensor, "image text"]:
    """Cosine similarity of each pair: the largest over an image's views (Li et al., 2023, section 3.2)."""
    products = einsum(image_views, text_vectors, "image view dim, text dim -> image text view")
    return reduce(products, "image text view -> image text", "max")


def check_size(num_images: int) -> None:
    """Refuse a batch that has nothing to compare.

    Raises:
        ValueError: It has a single picture.
    """
    if num_images < 2:
        raise ValueError(
            "a contrastive batch has 1 picture; at least 2 are needed, else the loss is zero for any model"
        )
