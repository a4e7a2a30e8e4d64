"""A visual tokenizer that learns to give pictures back from their codes."""

from typing import final

from torch import nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded, Progress
from isthmus.models.model import Model
from isthmus.parts.vision.tokenizer import VisualTokenizer

LAST_TEMPERATURE = 1 / 16
"""Where the softness of the choice ends (Ramesh et al., 2021, appendix A.2)."""


@final
class VisualTokenizerModel(Model):
    """The model of recipes of kind `visual_tokenizer`.

    Args:
        tokenizer: What learns.
    """

    def __init__(self, *, tokenizer: VisualTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def parts(self) -> dict[str, nn.Module]:
        """`tokenizer`."""
        return {"tokenizer": self.tokenizer}

    def encode(self, batch: Batch) -> Encoded:
        """The pictures read back, and the scores of codes that they were read back from."""
        assert batch.pixels is not None
        scores, pictures = self.tokenizer(batch.pixels)
        return Encoded(pictures=pictures, predictions=scores)

    def after_step(self, progress: Progress) -> None:
        """Make the choice of codes harder, from a temperature of 1 towards 1/16."""
        self.tokenizer.temperature.fill_(LAST_TEMPERATURE**progress.fraction)
