"""Stochastic depth: in training a block's update is left out for some samples (Huang et al., 2016)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class DropPath(nn.Module):
    """Leaves an update out for each sample by itself, and enlarges the others so that the mean stays.

    A sample's update is zero with the probability `rate` and else divided by 1 - rate, as in BEiT's code; Huang et al.,
    2016, section 3, shrink it when the network is used instead. In evaluation mode, so in every frozen part, updates
    pass unchanged and nothing is drawn. Torch's own generator draws, as for dropout: who seeds it before a pass gets
    the same pass again.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, update: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The update of the samples that keep theirs."""
        if not self.training or self.rate == 0:
            return update
        # In float32 whatever the update is: bf16 knows only 256 numbers between 0 and 1.
        drawn = torch.rand(update.shape[0], *(1 for _ in update.shape[1:]), device=update.device)
        return update / (1 - self.rate) * (drawn >= self.rate)


def rates_of(last: float, *, num_layers: int) -> list[float]:
    """Rates that rise evenly from 0 in the first block to `last` in the last one (Huang et al., 2016, section 3)."""
    return [last * at / max(num_layers - 1, 1) for at in range(num_layers)]
