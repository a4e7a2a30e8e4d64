"""A picture seen several times by one encoder: mirrored, or enlarged."""

from collections.abc import Iterator
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.sizes import Size
from isthmus.parts.vision.encoder import VisionEncoder


@final
class ViewsEncoder(VisionEncoder):
    """One encoder's tokens of a picture and of other views of it, one view after the other.

    A larger view lets an encoder see what is small at its own size (Shi et al., 2024, "When Do We Not Need Larger
    Vision Models?", section 3, which joins channels where this joins tokens). A mirrored view takes away what depends
    on the side a thing is on by chance. Only for encoders whose tokens all stand for patches.
    """

    def __init__(
        self, *, encoder: VisionEncoder, mirrored: bool = False, enlarged: int | None = None
    ) -> None:
        """See with an encoder more than once.

        Args:
            encoder: Sees each view.
            mirrored: Whether the picture is also seen mirrored, left for right.
            enlarged: Side in pixels of a larger view, enlarged from the same pixels; one encoder reads both sizes.
        """
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width
        self.image_size = encoder.image_size
        self.mirrored = mirrored
        self.enlarged = enlarged

    @property
    def alpha(self) -> nn.Module | None:
        """The inner encoder's."""
        return self.encoder.alpha

    def num_tokens(self, size: Size) -> int:
        """Those of every view."""
        tokens = self.encoder.num_tokens(size) * (2 if self.mirrored else 1)
        if self.enlarged is not None:
            tokens += self.encoder.num_tokens(Size(self.enlarged, self.enlarged))
        return tokens

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """The picture's tokens, the mirrored one's, the enlarged one's."""
        return torch.cat([self.encoder(view) for view in self._views(pixels)], dim=1)

    def _views(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Iterator[Float[Tensor, "image channel rows columns"]]:
        yield pixels
        if self.mirrored:
            yield pixels.flip(-1)
        if self.enlarged is not None:
            side = (self.enlarged, self.enlarged)
            yield functional.interpolate(pixels, size=side, mode="bicubic", align_corners=False)
