"""What losses that compare a whole batch are functions of: cached gradients and gathering across ranks cut here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded

ROWS_AT_ONCE = 256
"""Pictures whose similarities to all texts are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Representations:
    """The vectors of a batch and which belong together.

    Attributes:
        image_views: One or more unit vectors an image.
        text_vectors: One unit vector a text.
        image_of_text: For each text the row of its picture; a number that is no row is a picture of another process.
    """

    image_views: Float[Tensor, "image view dim"]
    text_vectors: Float[Tensor, "text dim"]
    image_of_text: Int[Tensor, " text"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some neighbouring pictures and some neighbouring texts of a batch."""

    images: slice
    texts: slice


@runtime_checkable
class Compares(Protocol):
    """An objective that judges each picture against the whole batch: a function of representations."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """Rows, under the one name of its loss."""
        ...

    def representations(self, encoded: Encoded, batch: Batch) -> Representations:
        """What the loss needs of a forward pass."""
        ...

    def share(self, representations: Representations, block: Block) -> Float[Tensor, ""]:
        """What the pictures and texts of a block add to the loss; over blocks that cover the batch it sums to it."""
        ...


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


def joined(parts: Sequence[Representations]) -> Representations:
    """Several batches as one."""
    owners, first = [], 0
    for part in parts:
        owners.append(part.image_of_text + first)
        first += part.image_views.shape[0]
    return Representations(
        image_views=torch.cat([part.image_views for part in parts]),
        text_vectors=torch.cat([part.text_vectors for part in parts]),
        image_of_text=torch.cat(owners),
    )


def whole(representations: Representations) -> Block:
    """All pictures and texts."""
    num_images, num_texts = representations.image_views.shape[0], representations.text_vectors.shape[0]
    return Block(images=slice(0, num_images), texts=slice(0, num_texts))


def share_in_blocks(
    objective: Compares, representations: Representations, block: Block, *, at_once: int = ROWS_AT_ONCE
) -> Float[Tensor, ""]:
    """`objective.share`, with memory in proportion to the batch instead of its square.

    Similarities of at most `at_once` rows exist at a time; the backward pass computes them again.
    """
    parts = _cut(block, at_once)
    if len(parts) == 1:
        return objective.share(representations, block)
    shares = [
        checkpoint(objective.share, representations, part, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]
    return torch.stack(shares).sum()


def _cut(block: Block, at_once: int) -> list[Block]:
    """Blocks of at most `at_once` pictures and texts."""
    longest = max(block.images.stop - block.images.start, block.texts.stop - block.texts.start)
    count = max(1, -(-longest // at_once))

    def cut(span: slice, number: int) -> slice:
        length = span.stop - span.start
        return slice(
            span.start + number * length // count,
            span.start + (number + 1) * length // count,
        )

    return [Block(images=cut(block.images, n), texts=cut(block.texts, n)) for n in range(count)]


def similarities(
    image_views: Float[Tensor, "image view dim"], text_vectors: Float[Tensor, "text dim"]
) -> Float[Tensor, "image text"]:
    """Cosine similarity of each pair: the largest over an image's views (Li et al., 2023, section 3.2)."""
    products = einsum(image_views, text_vectors, "image view dim, text dim -> image text view")
    return reduce(products, "image text view -> image text", "max")


def check_size(representations: Representations) -> None:
    """Refuse a batch that has nothing to compare.

    Raises:
        ValueError: It has a single picture.
    """
    if representations.image_views.shape[0] < 2:
        raise ValueError(
            "a contrastive batch has 1 picture; at least 2 are needed, else the loss is zero for any model"
        )
