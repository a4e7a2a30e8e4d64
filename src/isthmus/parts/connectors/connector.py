"""What every connector offers."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Connector(nn.Module, ABC):
    """From a vision encoder's tokens to visual tokens as wide as the language model's embeddings."""

    @abstractmethod
    def num_tokens(self, num_patches: int) -> int:
        """How many visual tokens a picture of `num_patches` tokens gives.

        Raises:
            ValueError: This connector cannot take that number.
        """

    @abstractmethod
    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Translate the tokens of each picture."""
