"""Naming the codes of hidden patches (Bao et al., 2022, equation 2)."""

from typing import final

from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, HasCodes, Progress, Term


@final
class MaskedTokens:
    """Cross-entropy of each hidden patch's code; the mean is over all hidden patches of the batch, not over pictures.

    Args:
        model: What knows the codes.
    """

    def __init__(self, model: HasCodes) -> None:
        self.model = model

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden patches."""
        assert batch.masked is not None
        return {"masked_tokens": int(batch.masked.sum())}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `masked_tokens`."""
        del progress
        assert encoded.predictions is not None
        assert batch.masked is not None
        scores = encoded.predictions[batch.masked].float()
        codes = self.model.codes(batch)[batch.masked]
        return {
            "masked_tokens": Term(
                sum=functional.cross_entropy(scores, codes, reduction="sum"), count=len(codes)
            )
        }
