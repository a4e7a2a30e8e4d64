"""Visual tokenizers: a picture becomes a grid of codes, and a grid of codes a picture."""

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
    """A score for each code in each place, the codes' vectors, and what draws a picture from vectors.

    In training a picture is read back from a soft choice of codes (Gumbel-softmax, Jang et al., 2017), which gets
    harder as `temperature` falls, as DALL-E's dVAE learnt (Ramesh et al., 2021, section 2.1); its penalty on how codes
    are spread is the objective `uniform_codes`.

    Args:
        patch: Pixels a code stands for, each way.
        scores: From pixels, normalised, to a score for each code in each place.
        codes: A vector for each code.
        decoder: From a grid of vectors, channels first, to normalised pixels.
    """

    temperature: Tensor

    def __init__(self, *, patch: int, scores: nn.Module, codes: nn.Embedding, decoder: nn.Module) -> None:
        super().__init__()
        self.patch = patch
        self.scores = scores
        self.codes = codes
        self.decoder = decoder
        self.register_buffer("temperature", torch.ones(()))

    def logits(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch code"]:
        """Scores of every code in every place."""
        return self.scores(pixels)

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
    ) -> tuple[Float[Tensor, "image patch code"], Float[Tensor, "image channel height width"]]:
        """Scores of codes, and the picture read back: from soft codes in training, from the likeliest otherwise."""
        grid = patch_grid(Size(pixels.shape[2], pixels.shape[3]), self.patch)
        scores = self.logits(pixels)
        if self.training:
            chosen = functional.gumbel_softmax(scores.float(), tau=float(self.temperature), dim=-1)
            return scores, self.picture_of(chosen @ self.codes.weight, grid)
        return scores, self.picture_of(self.codes(scores.argmax(dim=-1)), grid)


def small_tokenizer(*, vocabulary: int, patch: int, width: int) -> VisualTokenizer:
    """A discrete VAE of a few convolutions.

    Args:
        vocabulary: How many codes there are.
        patch: Pixels a code stands for, each way.
        width: Entries of the vectors inside, and of a code's own.

    Raises:
        ValueError: `patch` is no power of two.
    """
    encoder = ConvolutionalStem(patch=patch, width=width)
    return VisualTokenizer(
        patch=patch,
        scores=nn.Sequential(encoder, nn.GELU(), nn.Linear(width, vocabulary)),
        codes=nn.Embedding(vocabulary, width),
        decoder=_decoder(patch, width),
    )


def _decoder(patch: int, width: int) -> nn.Sequential:
    """One doubling after the other, and a last layer to red, green and blue."""
    layers: list[nn.Module] = [nn.Conv2d(width, width, kernel_size=3, padding=1), nn.GELU()]
    before = width
    for _ in range(patch.bit_length() - 1):
        after = max(before // 2, 16)
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, kernel_size=3, padding=1), nn.GELU()]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 3, kernel_size=1))
