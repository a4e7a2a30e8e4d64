"""Pictures to the numbers a vision encoder expects: resize, crop or pad, then normalise."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from isthmus.core.sizes import Size
from isthmus.data.pictures import BadSample, decode, digest

__all__ = ["CLIP_MEAN", "CLIP_STD", "BadSample", "ImageProcessor", "Resample", "Resize", "decode", "digest"]

Resize = Literal["none", "squash", "crop", "pad"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_PADDED_PIXELS = 16_000_000


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Makes every picture the same size and normalises it, with Pillow's resampling throughout.

    Attributes:
        size: Height and width that come out, in pixels.
        resize: `none` refuses other sizes; `squash` ignores the ratio of sides; `crop` scales the shorter side and
            cuts the centre; `pad` adds bars of the mean colour around the whole picture (LLaVA-1.5), then scales.
        mean: Subtracted from each channel of the picture in [0, 1].
        std: What each channel is then divided by.
        resample: Which filter scales.
        shortest_edge: For `crop`: length of the shorter side before cutting, in pixels; None takes the shorter
            side of `size`.
    """

    size: Size
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample = "bicubic"
    shortest_edge: int | None = None

    def __call__(
        self, picture: Image.Image, name: str = "the picture"
    ) -> Float[Tensor, "channel height width"]:
        """Prepare one RGB picture.

        Raises:
            BadSample: `resize` is `none` and the picture has another size.
        """
        return self.normalised(self.fit(picture, name))

    def normalised(self, picture: Image.Image) -> Float[Tensor, "channel height width"]:
        """The numbers of an RGB picture that has the right size already."""
        # A copy, because Pillow's own buffer is read-only.
        rgb = torch.from_numpy(np.array(picture, dtype=np.uint8))
        channels = rgb.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        return (channels / 255 - mean) / std

    def picture_of(self, pixels: Float[Tensor, "channel height width"]) -> Image.Image:
        """The RGB picture whose numbers these are; what is darker than black or brighter than white is cut off."""
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        levels = ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())

    def fit(self, picture: Image.Image, name: str = "the picture") -> Image.Image:
        """The picture at `size`, before normalisation: what the vision encoder looks at.

        Raises:
            BadSample: `resize` is `none` and the picture has another size.
        """
        if self.resize == "crop":
            return self._crop(picture)
        if self.resize == "pad":
            return self.scaled(self._pad(picture), self.size)
        if self.resize == "none" and picture.size != (self.size.width, self.size.height):
            raise BadSample(
                f"{name} is {picture.width}x{picture.height} pixels, but resize is 'none' and "
                f"{self.size.width}x{self.size.height} is expected; choose resize squash, crop or pad"
            )
        return self.scaled(picture, self.size)

    def blank(self) -> Float[Tensor, "channel height width"]:
        """A picture of the mean colour through this same processor: what the blank control shows the model."""
        return self(Image.new("RGB", (self.size.width, self.size.height), self.mean_colour))

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as an 8-bit colour, rounded down as LLaVA does: (122, 116, 104) for CLIP."""
        red, green, blue = (int(channel * 255) for channel in self.mean)
        return red, green, blue

    def scaled(self, picture: Image.Image, size: Size) -> Image.Image:
        """The picture at another size, whatever its ratio of sides."""
        if picture.size == (size.width, size.height):
            return picture
        return picture.resize((size.width, size.height), _FILTERS[self.resample])

    def _crop(self, picture: Image.Image) -> Image.Image:
        short = self.shortest_edge if self.shortest_edge is not None else min(self.size)
        scaled = self.scaled(picture, _with_shortest_edge(picture, short))
        # Where the scaled picture is smaller than the cut, Pillow fills with black, as transformers' processors do.
        top = _offset(scaled.height, self.size.height)
        left = _offset(scaled.width, self.size.width)
        return scaled.crop((left, top, left + self.size.width, top + self.size.height))

    def _pad(self, picture: Image.Image) -> Image.Image:
        ratio = self.size.width / self.size.height
        width = max(picture.width, round(picture.height * ratio))
        height = max(picture.height, round(picture.width / ratio))
        if width * height > _MAX_PADDED_PIXELS:
            factor = int(np.ceil((width * height / _MAX_PADDED_PIXELS) ** 0.5))
            return self._pad(picture.reduce(factor))
        padded = Image.new("RGB", (width, height), self.mean_colour)
        padded.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
        return padded


def _with_shortest_edge(picture: Image.Image, short: int) -> Size:
    # int() and not round(): the published processors cut the longer side down.
    if picture.height <= picture.width:
        return Size(height=short, width=int(short * picture.width / picture.height))
    return Size(height=int(short * picture.height / picture.width), width=short)


def _offset(length: int, target: int) -> int:
    # transformers pads so that the odd pixel goes first where it pads, and cuts so that it goes last where it cuts.
    return (length - target) // 2
