"""The pairwise sigmoid loss (Zhai et al., 2023, "Sigmoid Loss for Language Image Pre-Training", section 3.2)."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Contrasts, Encoded, Progress, Term
from isthmus.objectives.representations import (
    Block,
    Representations,
    check_size,
    representations_of,
    share_in_blocks,
    similarities,
    whole,
)


@final
class Sigmoid:
    """Each pair of a picture and a text is judged on its own: do they belong together or not?"""

    def __init__(self, model: Contrasts) -> None:
        """Read scale and bias from `model`; the paper starts them at 10 and -10, without a bias 0 is added."""
        self.model = model

    def counts(self, batch: Batch) -> dict[str, int]:
        """Rows."""
        return {"sigmoid": len(batch)}

    def representations(self, encoded: Encoded, batch: Batch) -> Representations:
        """What the loss needs of a forward pass."""
        return representations_of(encoded, batch)

    def loss(self, representations: Representations) -> Float[Tensor, ""]:
        """Summed over texts, mean over images (so divided by the batch size, not by its square).

        Every text of a picture is a pair of its own with that picture, so five captions give five positive pairs. As in
        the contrastive loss, two rows with the same picture count as two pictures.

        Raises:
            ValueError: The batch has a single picture, so there is no pair that does not belong together.
        """
        return share_in_blocks(self, representations, whole(representations))

    def share(self, representations: Representations, block: Block) -> Float[Tensor, ""]:
        """What the block's pictures lose on all texts; texts have no loss of their own.

        Raises:
            ValueError: The batch has a single picture.
        """
        check_size(representations)
        pairs = Representations(
            image_views=representations.image_views[block.images],
            text_vectors=representations.text_vectors,
            image_of_text=representations.image_of_text - block.images.start,
        )
        total = sum_of_pairs(pairs, scale=self.model.logit_scale(), bias=self.model.logit_bias())
        return total / representations.image_views.shape[0]

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `sigmoid`."""
        del progress
        total = self.loss(self.representations(encoded, batch)) * len(batch)
        return {"sigmoid": Term(sum=total, count=len(batch))}


def sum_of_pairs(
    representations: Representations, *, scale: Float[Tensor, ""], bias: Float[Tensor, ""] | None
) -> Float[Tensor, ""]:
    """-log sigmoid(±(scale x similarity + bias)) over all pairs: plus where they belong together, else minus.

    A text whose picture is not among the representations belongs to none of them.
    """
    logits = scale * similarities(representations.image_views, representations.text_vectors)
    if bias is not None:
        logits = logits + bias
    rows = torch.arange(logits.shape[0], device=logits.device)
    belongs = rearrange(rows, "image -> image 1") == representations.image_of_text
    return -functional.logsigmoid(torch.where(belongs, logits, -logits)).sum()
