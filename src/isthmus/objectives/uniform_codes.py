"""Keeping a visual tokenizer's choice of codes near the uniform prior."""

import math
from typing import final

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Term


@final
class UniformCodes:
    """How far each place's probabilities of codes are from uniform ones: their Kullback-Leibler divergence in nats.

    It is 0 where all codes are equally likely and the logarithm of their number where one is certain: the second term
    of the bound that a discrete VAE learns by (Ramesh et al., 2021, equation 1), whose weight spreads pictures over
    more codes (section 2.1). The bound adds up the places and the numbers of a picture, here both are means: where a
    code stands for n numbers, a weight of w here is w n there. DALL-E's 6.6 with n = 192 would be 0.034, up to what
    its likelihood makes of an error.
    """

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pictures."""
        return {"uniform_codes": len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `uniform_codes`: the mean over the places of each picture."""
        del progress
        assert encoded.predictions is not None
        logs = encoded.predictions.float().log_softmax(dim=-1)
        divergences = (logs.exp() * (logs + math.log(logs.shape[-1]))).sum(dim=-1)
        return {"uniform_codes": Term(sum=divergences.mean(dim=1).sum(), count=len(batch))}
