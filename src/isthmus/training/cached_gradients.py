"""Gradients of vectors, computed once for the whole batch (GradCache, Gao et al., 2021, section 3.2).

A loss that compares a whole batch needs all vectors, but not all activations. The vectors of every micro-batch are
computed without a graph; the loss of all of them gives the gradient of each vector; then each micro-batch runs again,
with a graph, and the backward pass starts from the gradients of its vectors. That is the chain rule, so the result is
exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from isthmus.objectives.representations import Representations, joined


@final
@dataclass(frozen=True, kw_only=True)
class VectorGradients:
    """Gradients of the vectors of one micro-batch."""

    image_views: Float[Tensor, "image view dim"]
    text_vectors: Float[Tensor, "text dim"]

    def roots(self, representations: Representations) -> list[tuple[Tensor, Tensor]]:
        """Where a backward pass starts, each tensor with its gradient; what frozen parts gave is left out."""
        pairs = (
            (representations.image_views, self.image_views),
            (representations.text_vectors, self.text_vectors),
        )
        return [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]


def cached_gradients(
    parts: Sequence[Representations], loss: Callable[[Representations], Float[Tensor, ""]]
) -> tuple[float, list[VectorGradients]]:
    """The loss of all micro-batches together, and the gradients of the vectors of each.

    Parameters that the loss itself uses (scale and bias) get their gradients here, once.
    """
    every = joined(parts)
    every.image_views.requires_grad_()
    every.text_vectors.requires_grad_()
    value = loss(every)
    value.backward()
    images, texts = every.image_views.grad, every.text_vectors.grad
    assert images is not None
    assert texts is not None
    of_images = images.split([part.image_views.shape[0] for part in parts])
    of_texts = texts.split([part.text_vectors.shape[0] for part in parts])
    return value.item(), [
        VectorGradients(image_views=image, text_vectors=text)
        for image, text in zip(of_images, of_texts, strict=True)
    ]
