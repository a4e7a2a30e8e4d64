"""A vision encoder that learns from pictures alone: some patches are hidden, and what they hold is predicted (MAE)."""

from typing import final

from torch import nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.core.sizes import Size
from isthmus.models.model import Model
from isthmus.nn.patches import patch_grid
from isthmus.parts.vision.predictor import PixelPredictor
from isthmus.parts.vision.vit import ViT


@final
class MaskedImageModel(Model):
    """The model of recipes of kind `masked_image_model`.

    Args:
        vision: The encoder that is wanted; it gives CLS and patches.
        predictor: What predicts from its tokens, and is left behind afterwards.
        normalised: Whether each patch is predicted relative to its own mean and deviation.
    """

    def __init__(self, *, vision: ViT, predictor: PixelPredictor, normalised: bool = True) -> None:
        super().__init__()
        self.normalised = normalised
        self.vision = vision
        self.predictor = predictor

    def parts(self) -> dict[str, nn.Module]:
        """`vision` and `predictor`."""
        return {"vision": self.vision, "predictor": self.predictor}

    def encode(self, batch: Batch) -> Encoded:
        """Predictions for every patch of the grid, seen or not."""
        assert batch.pixels is not None
        assert batch.kept is not None
        grid = patch_grid(Size(*batch.pixels.shape[2:]), self.vision.patch_embedding.patch)
        tokens = self.vision(batch.pixels, batch.kept)
        return Encoded(predictions=self.predictor(tokens, batch.kept, grid))
