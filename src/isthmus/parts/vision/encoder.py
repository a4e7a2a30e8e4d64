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

    @property
    def alpha(self) -> nn.Module | None:
        """The convolution that reads which region is meant; None for an encoder that sees colours alone."""
        return None

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """Encode pictures that the image processor prepared."""


def depth_of(layer: int, *, num_layers: int) -> int:
    """How many layers an encoder needs that is read at a layer.

    Args:
        layer: Whose output, counted as Hugging Face's `hidden_states`: 0 is what enters the first layer, k what leaves
            layer k, -1 what leaves the last layer.
        num_layers: Layers of the whole encoder.

    Raises:
        ValueError: There is no such layer.
    """
    depth = layer + num_layers + 1 if layer < 0 else layer
    if not 0 <= depth <= num_layers:
        raise ValueError(
            f"there is no layer {layer}: this encoder has {num_layers} layers; choose one from "
            f"{-num_layers - 1} to {num_layers} (0 is the embeddings, {num_layers} or -1 the last layer, -2 the one "
            "before), or null for the whole network"
        )
    return depth


def check_final_norm(layer: int, *, num_layers: int) -> None:
    """Refuse the last normalisation, which was trained for the last layer, at any other.

    Raises:
        ValueError: The layer is not the last.
    """
    if depth_of(layer, num_layers=num_layers) < num_layers:
        raise ValueError(
            f"the last normalisation belongs to the last layer ({num_layers}), but layer {layer} is asked for; "
            "set final_norm: false"
        )
