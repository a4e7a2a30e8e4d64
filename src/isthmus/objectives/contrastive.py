"""The symmetric contrastive loss (Radford et al., 2021, Figure 3), for one or several views an image."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Contrasts, Encoded, Progress, Term
from isthmus.objectives.representations import Representations, check_size, representations_of, similarities


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
        return representations_of(encoded, batch)

    def loss(self, representations: Representations) -> Float[Tensor, ""]:
        """Mean over both directions and the batch.

        A text's target is its picture. A picture's target is shared evenly by its texts: with one text each that is the
        published loss; with five, each of the five is pulled and none pushes the others away.

        Raises:
            ValueError: The batch has a single picture: with nothing to contrast the loss is zero for any model.
        """
        num_images = representations.image_views.shape[0]
        check_size(num_images)
        logits = similarities(representations.image_views, representations.text_vectors)
        logits = logits * self.model.logit_scale()
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
