"""Random views of pictures in training: a part of the picture, perhaps mirrored, drawn with the data."""

import math
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps

from isthmus.data.samples import ImageRef


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may be drawn.

    Attributes:
        crop: Least share of the picture's area that a view shows, in (0, 1]; the largest is all of it.
        flip: Whether half of the views are mirrored.
    """

    crop: float = 1.0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class View:
    """One draw: fractions of the picture's own width and height.

    Attributes:
        side: Width and height of the part that is seen, as shares of the picture's: its ratio of sides stays.
        left: Where it begins, as a share of the room there is.
        top: The same from above.
        mirrored: Whether left and right are exchanged.
    """

    side: float
    left: float
    top: float
    mirrored: bool


def view_of(augmentation: Augmentation, generator: torch.Generator) -> View:
    """Draw a view; its area is evenly distributed between `crop` and all of the picture."""
    area, left, top, coin = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    return View(
        side=math.sqrt(augmentation.crop + (1 - augmentation.crop) * area),
        left=left,
        top=top,
        mirrored=augmentation.flip and coin < 0.5,
    )


@dataclass(frozen=True)
class ViewedImage(ImageRef):
    """A picture of which a part is seen."""

    image: ImageRef
    view: View

    def read(self) -> bytes:
        """What names it: the picture and the view, so that stored features of the whole picture are not taken for it.

        Raises:
            BadSample: The picture cannot be read.
        """
        return f"{self.view} {self.image.digest()}".encode()

    def picture(self) -> Image.Image:
        """The part of the decoded picture.

        Raises:
            BadSample: The picture cannot be read.
        """
        whole = self.image.picture()
        width = max(1, round(whole.width * self.view.side))
        height = max(1, round(whole.height * self.view.side))
        left = round((whole.width - width) * self.view.left)
        top = round((whole.height - height) * self.view.top)
        part = whole.crop((left, top, left + width, top + height))
        return ImageOps.mirror(part) if self.view.mirrored else part
