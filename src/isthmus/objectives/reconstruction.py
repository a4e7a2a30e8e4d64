"""Giving pictures back from their codes: the mean squared error of pixels."""

from typing import final

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Term


@final
class Reconstruction:
    """Mean squared error of each picture, in the numbers that the encoder reads."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pictures."""
        return {"reconstruction": len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `reconstruction`."""
        del progress
        assert encoded.pictures is not None
        assert batch.pixels is not None
        errors = (encoded.pictures - batch.pixels).square().mean(dim=(1, 2, 3))
        return {"reconstruction": Term(sum=errors.sum(), count=len(batch))}
