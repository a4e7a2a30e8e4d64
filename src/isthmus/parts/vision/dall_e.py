"""DALL-E's discrete VAE, whose codes BEiT predicts (Ramesh et al., 2021, appendix A; Bao et al., 2022)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.parts.vision.tokenizer import VisualTokenizer

PIXELS_A_CODE = 8
"""Each way: the encoder halves a picture three times."""
_EDGE = 0.1
_WIDENINGS = (1, 2, 4, 8)
_CONVOLUTIONS = 4


@dataclass(frozen=True, kw_only=True)
class DallEShape:
    """Sizes of the two networks; the published ones are the defaults.

    Attributes:
        vocabulary: How many codes there are.
        width: Channels of the first group of blocks; the others have 2, 4 and 8 times as many.
        code_width: Entries of a code's vector.
        blocks: Residual blocks of each of the four groups.
    """

    vocabulary: int = 8192
    width: int = 256
    code_width: int = 128
    blocks: int = 2


def dall_e_tokenizer(
    shape: DallEShape, *, patch: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> VisualTokenizer:
    """The tokenizer, with random weights.

    Args:
        shape: Sizes of the networks.
        patch: Pixels of the picture that a code stands for, each way; above 8 the picture is made smaller first, as
            BEiT shows its tokenizer 112 pixels where the ViT sees 224.
        mean: What was subtracted from the pixels of [0, 1] that come in and go out.
        std: What they were divided by.

    Raises:
        ValueError: `patch` is no multiple of 8.
    """
    if patch % PIXELS_A_CODE:
        raise ValueError(
            f"DALL-E's codes stand for 8 pixels each way, so patch {patch} must be 8, 16, 24, ..."
        )
    pixels = PixelRange(mean=mean, std=std)
    shrink = patch // PIXELS_A_CODE
    return VisualTokenizer(
        patch=patch,
        scores=DallEEncoder(shape, pixels=pixels, shrink=shrink),
        codes=nn.Embedding(shape.vocabulary, shape.code_width),
        decoder=DallEDecoder(shape, pixels=pixels, enlarge=shrink),
    )


@final
class PixelRange(nn.Module):
    """Between normalised pixels and the range [0.1, 0.9] that DALL-E's networks read and write (appendix A.3)."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def inwards(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel height width"]:
        """From normalised pixels."""
        return (1 - 2 * _EDGE) * (pixels * self.std + self.mean) + _EDGE

    def outwards(
        self, levels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image channel height width"]:
        """To normalised pixels; what is darker than black or brighter than white is cut off."""
        return (((levels - _EDGE) / (1 - 2 * _EDGE)).clamp(0, 1) - self.mean) / self.std


@final
class DallEEncoder(nn.Module):
    """Four groups of residual blocks, halved between groups, and a score for each code."""

    def __init__(self, shape: DallEShape, *, pixels: PixelRange, shrink: int) -> None:
        """Build the layers; the picture is first made `shrink` times smaller each way."""
        super().__init__()
        self.pixels = pixels
        self.shrink = shrink
        widths = [shape.width, *[factor * shape.width for factor in _WIDENINGS]]
        self.input = nn.Conv2d(3, shape.width, kernel_size=7, padding=3)
        self.groups = _groups(widths, shape.blocks, kernels=(3, 3, 3, 1))
        self.output = nn.Conv2d(widths[-1], shape.vocabulary, kernel_size=1)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch code"]:
        """Scores, unnormalised."""
        if self.shrink > 1:
            pixels = functional.interpolate(
                pixels, scale_factor=1 / self.shrink, mode="bicubic", antialias=True
            )
        state = self.input(self.pixels.inwards(pixels))
        for number, group in enumerate(self.groups):
            state = group(functional.max_pool2d(state, 2) if number else state)
        return rearrange(self.output(state.relu()), "image code row column -> image (row column) code")


@final
class DallEDecoder(nn.Module):
    """Four groups of residual blocks, doubled between groups; it gives location and spread of each colour level."""

    def __init__(self, shape: DallEShape, *, pixels: PixelRange, enlarge: int) -> None:
        """Build the layers; the picture is made `enlarge` times larger each way at the end."""
        super().__init__()
        self.pixels = pixels
        self.enlarge = enlarge
        widths = [shape.code_width, *[factor * shape.width for factor in reversed(_WIDENINGS)]]
        self.bias = nn.Parameter(torch.zeros(shape.code_width))
        self.groups = _groups(widths, shape.blocks, kernels=(1, 3, 3, 3))
        self.output = nn.Conv2d(widths[-1], 6, kernel_size=1)

    def forward(
        self, vectors: Float[Tensor, "image dim row column"]
    ) -> Float[Tensor, "image channel height width"]:
        """The likeliest picture; the spread is not used."""
        state = vectors + self.bias[:, None, None]
        for number, group in enumerate(self.groups):
            state = group(functional.interpolate(state, scale_factor=2) if number else state)
        levels = self.output(state.relu())[:, :3].sigmoid()
        pixels = self.pixels.outwards(levels)
        if self.enlarge > 1:
            pixels = functional.interpolate(pixels, scale_factor=self.enlarge, mode="bilinear")
        return pixels


class _Block(nn.Module):
    """A residual block before whose convolutions a ReLU stands; its update is made small by a fixed gain."""

    def __init__(self, before: int, after: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        inner = after // _CONVOLUTIONS
        widths = [before, *[inner] * (len(kernels) - 1), after]
        self.gain = gain
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, kernel_size=1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(one, other, kernel_size=kernel, padding=kernel // 2)
            for (one, other), kernel in zip(pairwise(widths), kernels, strict=True)
        )

    def forward(
        self, state: Float[Tensor, "image dim row column"]
    ) -> Float[Tensor, "image after row column"]:
        update = state
        for convolution in self.convolutions:
            update = convolution(update.relu())
        return self.skip(state) + self.gain * update


def _groups(widths: list[int], blocks: int, *, kernels: tuple[int, ...]) -> nn.ModuleList:
    gain = 1 / (len(_WIDENINGS) * blocks) ** 2
    return nn.ModuleList(
        nn.Sequential(
            *[_Block(before if number == 0 else after, after, kernels, gain) for number in range(blocks)]
        )
        for before, after in pairwise(widths)
    )
