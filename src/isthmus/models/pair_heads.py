"""What contrast and matching need behind a model's encoders, and captions do not (BLIP, BLIP-2)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@final
class PairHeads(nn.Module):
    """Projections to the space where pictures and texts are compared, the match, and the temperature."""

    def __init__(self, *, image_width: int, text_width: int, embed_dim: int, temperature: float) -> None:
        """Build them.

        Args:
            image_width: Size of a picture's vector: of a token, or of a query that read it.
            text_width: Size of a word, and of what is matched.
            embed_dim: Size of the vectors that are compared.
            temperature: What similarities are divided by at the start; learned.
        """
        super().__init__()
        self.image = nn.Linear(image_width, embed_dim)
        self.text = nn.Linear(text_width, embed_dim)
        self.match = nn.Linear(text_width, 2)
        self.temperature = nn.Parameter(torch.tensor(temperature))

    def text_vectors(self, words: Float[Tensor, "text token width"]) -> Float[Tensor, "text dim"]:
        """Unit vectors of texts, from the state of their first token."""
        return functional.normalize(self.text(words[:, 0]), dim=-1)

    def logit_scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by: one over the temperature."""
        return 1 / self.temperature
