"""An exponential moving average of the trained weights (Polyak and Juditsky, 1992)."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn


@final
class WeightAverage:
    """Keeps `average = d * average + (1 - d) * weight` for every trained parameter.

    `d` is `min(decay, (1 + step) / (10 + step))`, so that short runs are not held back by their first weights.

    Args:
        parameters: The trained parameters by name; the averages start as copies of them.
        decay: The largest `d`, in (0, 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the update of `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, average in self.averages.items():
            average.lerp_(self._parameters[name].detach(), 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model use the averages; afterwards the trained weights are back, bit for bit."""
        trained = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self.apply()
        try:
            yield
        finally:
            _copy(trained, self._parameters)

    def apply(self) -> None:
        """Give the model the averages for good."""
        _copy(self.averages, self._parameters)


@torch.no_grad()
def _copy(sources: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for name, source in sources.items():
        parameters[name].copy_(source)
