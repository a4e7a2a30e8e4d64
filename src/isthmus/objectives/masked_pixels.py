"""Predicting the pixels of hidden patches (He et al., 2022, section 3, "Reconstruction target")."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Term
from isthmus.nn.patches import patchify

EPS = 1e-6


@final
class MaskedPixels:
    """Mean squared error of each hidden patch; what the encoder saw does not count.

    Args:
        patch: Side of a patch, in pixels.
        normalised: Whether the target is each patch with its own mean taken away and divided by its own deviation (of
            the unbiased variance, as published).
    """

    def __init__(self, *, patch: int, normalised: bool = True) -> None:
        self.patch = patch
        self.normalised = normalised

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden patches."""
        assert batch.masked is not None
        return {"masked_pixels": int(batch.masked.sum())}

    def targets(self, batch: Batch) -> Float[Tensor, "image patch value"]:
        """What should be predicted of every patch."""
        assert batch.pixels is not None
        patches = patchify(batch.pixels, self.patch)
        if not self.normalised:
            return patches
        deviation, mean = torch.std_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (deviation.square() + EPS).sqrt()

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `masked_pixels`."""
        del progress
        assert encoded.predictions is not None
        assert batch.masked is not None
        errors = (encoded.predictions - self.targets(batch)).square().mean(dim=-1)
        return {"masked_pixels": Term(sum=(errors * batch.masked).sum(), count=int(batch.masked.sum()))}
