"""One linear map a token, as in the first LLaVA (Liu et al., 2023, section 4.1)."""

from jaxtyping import Float
from torch import Tensor, nn

from isthmus.parts.connectors.connector import Connector


class LinearConnector(Connector):
    """`num_patches` tokens in, as many out."""

    def __init__(self, *, vision_width: int, language_width: int) -> None:
        super().__init__()
        self.map = nn.Linear(vision_width, language_width)

    def num_tokens(self, num_patches: int) -> int:
        """As many as patches."""
        return num_patches

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image token width"]:
        """Map each token."""
        return self.map(patches)
