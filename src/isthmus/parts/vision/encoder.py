"""What every vision encoder offers, whether it was trained here or elsewhere."""

from abc import ABC, abstractmethod
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.sizes import Size

Features = Literal["patches", "all", "cls", "pooled", "projected"]
"""Which tokens leave an encoder: patches, CLS and patches, CLS, its pooled vector, its projected vector."""


class VisionEncoder(nn.Module, ABC):
    """From pixels to tokens of `width` numbers.

    Attributes:
        width: Size of a token vector.
        image_size: The picture size the encoder was made for.
    """

    width: int
    image_size: Size

    @abstractmethod
    def num_tokens(self, size: Size) -> int:
        """How many tokens a picture of this size gives."""

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """Encode pictures that the image processor prepared."""
