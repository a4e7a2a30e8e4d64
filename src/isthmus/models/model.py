"""What every model kind offers: one forward pass a batch, named parts, and what happens after a step."""

from abc import ABC, abstractmethod

from torch import nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress


class Model(nn.Module, ABC):
    """An assembly of parts."""

    @abstractmethod
    def encode(self, batch: Batch) -> Encoded:
        """Run once; all objectives of a stage read the result."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The parts that recipes train or freeze by name; a part inside another (LoRA) is listed too."""

    def inner_parts(self) -> dict[str, nn.Module]:
        """What a stage can keep frozen inside a part that it trains."""
        return {}

    def begin(self) -> None:
        """Called before the first step of a stage, with the weights that it starts from."""

    def after_step(self, progress: Progress) -> None:
        """Called after every update; most models have nothing to do."""
        del progress
