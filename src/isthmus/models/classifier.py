"""A vision encoder that names the class of a picture by one linear layer."""

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.batch import Batch
from isthmus.core.protocols import Encoded
from isthmus.models.model import Model
from isthmus.models.pictures import patch_tokens
from isthmus.parts.vision.encoder import VisionEncoder


class ClassHead(nn.Module):
    """From tokens to one score a class.

    Args:
        vision_width: Size of the encoder's tokens.
        num_classes: How many classes there are.
        pooling: The mean of all tokens, or the first.
        dropout: Share of the pooled vector dropped in training.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        num_classes: int,
        pooling: Literal["mean", "first"] = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(vision_width, num_classes)

    def forward(self, tokens: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image class"]:
        """Scores, before any softmax."""
        pooled = tokens.mean(dim=1) if self.pooling == "mean" else tokens[:, 0]
        return self.layer(self.dropout(pooled))


@final
class Classifier(Model):
    """The model of recipes of kind `classifier`.

    Args:
        vision: From pixels to tokens.
        head: From tokens to scores.
    """

    def __init__(self, *, vision: VisionEncoder, head: ClassHead) -> None:
        super().__init__()
        self.vision = vision
        self.head = head

    def parts(self) -> dict[str, nn.Module]:
        """`vision` and `head`."""
        return {"vision": self.vision, "head": self.head}

    def encode(self, batch: Batch) -> Encoded:
        """Scores of each picture's classes."""
        tokens = patch_tokens(self.vision, batch)
        assert tokens is not None
        return Encoded(class_scores=self.head(tokens))
