"""A small discrete VAE: a picture becomes a grid of codes, and a grid of codes a picture."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.sizes import Size
from isthmus.nn.patches import ConvolutionalStem, patch_grid


@final
class VisualTokenizer(nn.Module):
    """Convolutions to a score for each code, and convolutions from the codes' vectors back to pixels.

    In training a picture is read back from a soft choice of codes (Gumbel-softmax, Jang et al., 2017), which gets
    harder as `temperature` falls, as DALL-E's dVAE learnt (Ramesh et al., 2021, section 2.1; without its penalty on how
    codes are spread).

    Args:
        vocabulary: How many codes there are.
        patch: Pixels a code stands for, each way; a power of two.
        width: Entries of the vectors inside, and of a code's own.
    """

    temperature: Tensor

    def __init__(self, *, vocabulary: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.encoder = ConvolutionalStem(patch=patch, width=width)
        self.scores = nn.Linear(width, vocabulary)
        self.codes = nn.Embedding(vocabulary, width)
        self.decoder = _decoder(patch, width)
        self.register_buffer("temperature", torch.ones(()))

    def logits(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch code"]:
        """Scores of every code in every place."""
        return self.scores(functional.gelu(self.encoder(pixels)))

    @torch.no_grad()
    def codes_of(self, pixels: Float[Tensor, "image channel height width"]) -> Int[Tensor, "image patch"]:
        """The likeliest code of every place."""
        return self.logits(pixels).argmax(dim=-1)

    def picture_of(
        self, vectors: Float[Tensor, "image patch dim"], grid: Size
    ) -> Float[Tensor, "image channel height width"]:
        """The picture that a grid of codes' vectors stands for."""
        return self.decoder(
            rearrange(vectors, "image (row column) dim -> image dim row column", row=grid.height)
        )

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel height width"]:
        """The picture read back: from soft codes in training, from the likeliest ones otherwise."""
        grid = patch_grid(Size(pixels.shape[2], pixels.shape[3]), self.patch)
        scores = self.logits(pixels)
        if self.training:
            chosen = functional.gumbel_softmax(scores.float(), tau=float(self.temperature), dim=-1)
            return self.picture_of(chosen @ self.codes.weight, grid)
        return self.picture_of(self.codes(scores.argmax(dim=-1)), grid)


def _decoder(patch: int, width: int) -> nn.Sequential:
    """One doubling after the other, and a last layer to red, green and blue."""
    layers: list[nn.Module] = [nn.Conv2d(width, width, kernel_size=3, padding=1), nn.GELU()]
    before = width
    for _ in range(patch.bit_length() - 1):
        after = max(before // 2, 16)
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, kernel_size=3, padding=1), nn.GELU()]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 3, kernel_size=1))
