"""Naming the class of a picture: cross-entropy over all classes."""

from typing import final

from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Term


@final
class Classification:
    """The cross-entropy of each picture's class (Szegedy et al., 2016, section 7, for the smoothing).

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pictures."""
        return {"classification": len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `classification`."""
        del progress
        assert encoded.class_scores is not None
        assert batch.labels is not None
        total = functional.cross_entropy(
            encoded.class_scores, batch.labels, label_smoothing=self.label_smoothing, reduction="sum"
        )
        return {"classification": Term(sum=total, count=len(batch))}
