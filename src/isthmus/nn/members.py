"""Several networks of one kind that are read side by side."""

from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@final
class Members(nn.Module):
    """A deep ensemble (Lakshminarayanan et al., 2017, section 2.4): the same network from several random starts.

    Each member's vector has unit length before they are joined, so the product of two joined vectors is the sum of the
    members' own cosines, and no member counts more than another.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        """Read networks side by side that take the same inputs and give vectors of one size."""
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, *given: Tensor) -> Float[Tensor, "row joined"]:
        """The members' vectors, one behind the other."""
        vectors = [functional.normalize(network(*given), dim=-1) for network in self.networks]
        return torch.cat(vectors, dim=-1)
