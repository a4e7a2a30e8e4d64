"""A vision encoder that learns from pictures alone: some patches are hidden, and what they hold is predicted."""

from typing import final

from jaxtyping import Int
from torch import Tensor, nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.core.sizes import Size
from isthmus.models.model import Model
from isthmus.nn.patches import patch_grid
from isthmus.parts.vision.predictor import CodePredictor, PixelPredictor
from isthmus.parts.vision.tokenizer import VisualTokenizer
from isthmus.parts.vision.vit import ViT


@final
class MaskedImageModel(Model):
    """The model of recipes of kind `masked_image_model`.

    Args:
        vision: The encoder that is wanted; it gives CLS and patches.
        predictor: What predicts from its tokens, and is left behind afterwards.
        tokenizer: What gives hidden patches their codes, for a predictor of codes.
        normalised: Whether pixels of a patch are predicted relative to their own mean and deviation.
    """

    def __init__(
        self,
        *,
        vision: ViT,
        predictor: PixelPredictor | CodePredictor,
        tokenizer: VisualTokenizer | None = None,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.normalised = normalised
        self.vision = vision
        self.predictor = predictor
        self.tokenizer = tokenizer

    def parts(self) -> dict[str, nn.Module]:
        """`vision`, `predictor`, and `tokenizer` where codes are predicted."""
        parts: dict[str, nn.Module] = {"vision": self.vision, "predictor": self.predictor}
        return parts if self.tokenizer is None else parts | {"tokenizer": self.tokenizer}

    def codes(self, batch: Batch) -> Int[Tensor, "image patch"]:
        """The code of every patch, hidden or not."""
        assert self.tokenizer is not None
        assert batch.pixels is not None
        return self.tokenizer.codes_of(batch.pixels)

    def encode(self, batch: Batch) -> Encoded:
        """Predictions for every patch of the grid, seen or not."""
        assert batch.pixels is not None
        if isinstance(self.predictor, CodePredictor):
            tokens = self.vision(batch.pixels, masked=batch.masked)
            return Encoded(predictions=self.predictor(tokens[:, 1:]))
        assert batch.kept is not None
        grid = patch_grid(Size(*batch.pixels.shape[2:]), self.vision.patch_embedding.patch)
        tokens = self.vision(batch.pixels, batch.kept)
        return Encoded(predictions=self.predictor(tokens, batch.kept, grid))
