"""Next-token prediction: cross-entropy over the supervised positions, and only those reach the output head."""

from typing import final

from torch.nn import functional

from isthmus.core.batch import IGNORED, Batch
from isthmus.core.protocols import Encoded, PredictsTokens, Progress, Term


@final
class NextToken:
    """The sum of -log p(target) over supervised positions; its count is the number of those positions.

    Targets are stored where they stand; the hidden state one place earlier predicts them. The trainer divides by the
    count over the whole global batch, so rows with long answers weigh as much per token as short ones.
    """

    def __init__(self, model: PredictsTokens, *, label_smoothing: float = 0.0) -> None:
        """Read logits from `model`; `label_smoothing` spreads this fraction evenly over the vocabulary."""
        self.model = model
        self.label_smoothing = label_smoothing

    def counts(self, batch: Batch) -> dict[str, int]:
        """Supervised positions."""
        return {"next_token": batch.num_supervised}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `next_token`."""
        del progress
        assert encoded.hidden is not None
        assert batch.targets is not None
        targets = batch.targets[:, 1:]
        supervised = targets != IGNORED
        logits = self.model.token_logits(encoded.hidden[:, :-1][supervised])
        total = functional.cross_entropy(
            logits.float(), targets[supervised], reduction="sum", label_smoothing=self.label_smoothing
        )
        return {"next_token": Term(sum=total, count=batch.num_supervised)}
