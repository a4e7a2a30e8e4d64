"""Regions of pictures: what is said of one, which pixels it covers, and the alpha channel that marks it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from isthmus.core.sizes import Size
from isthmus.data.images import ImageProcessor
from isthmus.data.pictures import BadSample

ALPHA_MEAN, ALPHA_STD = 0.5, 0.26
"""How the published code normalises a mask of 0 and 1: to -1.923 and 1.923 (Sun et al., 2024, Alpha-CLIP)."""


class Mask(ABC):
    """Which pixels of a picture belong to a region; nothing is drawn or read until asked for."""

    @abstractmethod
    def read(self) -> Bool[np.ndarray, "height width"]:
        """True where the region is."""


@dataclass(frozen=True)
class Region:
    """A part of a picture and what is said of it."""

    caption: str
    mask: Mask


def alpha_of(
    mask: Bool[np.ndarray, "height width"], *, picture: Size, images: ImageProcessor, name: str
) -> Float[Tensor, "1 height width"]:
    """A mask as the encoder's fourth channel, cut and scaled exactly as its picture is.

    Args:
        mask: True where the region is.
        picture: The picture's own size, before it was prepared.
        images: What prepared the picture; bars that it adds around one are outside every region.
        name: What messages call the picture.

    Raises:
        BadSample: The mask has another size than its picture.
    """
    height, width = mask.shape
    if (height, width) != tuple(picture):
        raise BadSample(
            f"{name} is {picture.width}x{picture.height} pixels, but the mask of its region is {width}x{height}; "
            "give a mask of the picture's own size"
        )
    grey = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    fitted = replace(images, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))(grey, name)
    return (fitted[:1] - ALPHA_MEAN) / ALPHA_STD


def everywhere(images: ImageProcessor) -> Float[Tensor, "1 height width"]:
    """The channel of a picture that is meant as a whole; what CLIP alone sees is this, not an empty mask."""
    return _even(images, 1.0)


def nowhere(images: ImageProcessor) -> Float[Tensor, "1 height width"]:
    """The channel of a picture in which nothing is marked, for controls."""
    return _even(images, 0.0)


def _even(images: ImageProcessor, value: float) -> Float[Tensor, "1 height width"]:
    return torch.full((1, images.size.height, images.size.width), (value - ALPHA_MEAN) / ALPHA_STD)
