"""The symmetric contrastive loss (Radford et al., 2021, Figure 3), for one or several views an image."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
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
class Contrastive:
    """Each picture must find its text among all texts of the batch, and each text its picture."""

    def __init__(self, model: Contrasts, *, label_smoothing: float = 0.0, num_members: int = 1) -> None:
        """Compare what a model gives.

        Args:
            model: Has the scale.
            label_smoothing: Fraction of each target that is spread evenly over the batch.
            num_members: Vectors of unit length that each vector joins; each is compared with its own kind alone, and
                the loss is their mean, so that the members of an ensemble do not lean on each other.
        """
        self.model = model
        self.label_smoothing = label_smoothing
        self.num_members = num_members

    def counts(self, batch: Batch) -> dict[str, int]:
        """Rows."""
        return {"contrastive": len(batch)}

    def representations(self, encoded: Encoded, batch: Batch) -> Representations:
        """What the loss needs of a forward pass."""
        return representations_of(encoded, batch)

    def loss(self, representations: Representations) -> Float[Tensor, ""]:
        """Mean over both directions and the batch.

        A text's target is its picture. A picture's target is shared evenly by its texts: with one text each that is the
        published loss; with five, each of the five is pulled and none pushes the others away.

        Raises:
            ValueError: The batch has a single picture: with nothing to contrast the loss is zero for any model.
        """
        return share_in_blocks(self, representations, whole(representations))

    def share(self, representations: Representations, block: Block) -> Float[Tensor, ""]:
        """Half of what the block's pictures lose among all texts, and half of what its texts lose among all pictures.

        Raises:
            ValueError: The batch has a single picture.
        """
        check_size(representations)
        views = representations.image_views.chunk(self.num_members, dim=-1)
        texts = representations.text_vectors.chunk(self.num_members, dim=-1)
        own, norm = representations.image_of_text, self.num_members**0.5
        shares = [
            self._compared(norm * seen, norm * said, own, block)
            for seen, said in zip(views, texts, strict=True)
        ]
        return torch.stack(shares).mean()

    def _compared(
        self,
        views: Float[Tensor, "image view dim"],
        texts: Float[Tensor, "text dim"],
        own: Int[Tensor, " text"],
        block: Block,
    ) -> Float[Tensor, ""]:
        """The same of unit vectors."""
        scale = self.model.logit_scale()
        to_text = scale * similarities(views[block.images], texts)
        to_image = scale * similarities(views, texts[block.texts])
        rows = torch.arange(views.shape[0], device=own.device)[block.images]
        belongs = (rearrange(rows, "image -> image 1") == own).to(to_text.dtype)
        targets = belongs / belongs.sum(dim=1, keepdim=True)
        lost = functional.cross_entropy(
            to_text, targets, reduction="sum", label_smoothing=self.label_smoothing
        )
        found = functional.cross_entropy(
            to_image.T, own[block.texts], reduction="sum", label_smoothing=self.label_smoothing
        )
        return (lost / views.shape[0] + found / texts.shape[0]) / 2

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `contrastive`."""
        del progress
        total = self.loss(self.representations(encoded, batch)) * len(batch)
        return {"contrastive": Term(sum=total, count=len(batch))}
