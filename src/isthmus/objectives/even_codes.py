"""Using all codes of a visual tokenizer about equally often."""

import math
from typing import final

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress, Term


@final
class EvenCodes:
    """How far the use of codes in a batch is from even: the divergence of their mean probabilities from uniform ones.

    The mean is over all places of all pictures; the divergence is Kullback and Leibler's, in nats: 0 where every code
    is used as often, however certain single places are, and the logarithm of their number where only one is used. Up
    to a constant and a factor it is the diversity loss of wav2vec 2.0 (Baevski et al., 2020, equation 4), with
    probabilities before noise and temperature, as there. `UniformCodes` asks the same of every place by itself.

    A divergence of a mean is no mean of divergences, so pictures of other processes do not count.
    """

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pictures."""
        return {"even_codes": len(batch)}

    def __call__(self, encoded: Encoded, batch: Batch, progress: Progress) -> dict[str, Term]:
        """One term, `even_codes`: the batch's divergence, for each of its pictures."""
        del progress
        assert encoded.predictions is not None
        used = encoded.predictions.float().softmax(dim=-1).mean(dim=(0, 1))
        # A code that is never used has a probability of 0, whose part of the sum is 0 too.
        divergence = (used * (used.clamp_min(1e-12).log() + math.log(len(used)))).sum()
        return {"even_codes": Term(sum=divergence * len(batch), count=len(batch))}
