"""Cutting a picture into square patches and projecting each (Dosovitskiy et al., 2021, section 3.1)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.sizes import Size


def patch_grid(size: Size, patch: int) -> Size:
    """How many patches fit, as height and width.

    Raises:
        ValueError: The patch does not divide the picture.
    """
    if size.height % patch or size.width % patch:
        raise ValueError(
            f"a picture of {size.width}x{size.height} pixels cannot be cut into patches of {patch}; "
            f"width and height must be multiples of {patch}"
        )
    return Size(size.height // patch, size.width // patch)


class PatchEmbedding(nn.Module):
    """A strided convolution: one vector a patch, row by row."""

    def __init__(self, *, patch: int, width: int, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.patch = patch
        self.projection = nn.Conv2d(channels, width, kernel_size=patch, stride=patch, bias=bias)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """Embed every patch."""
        patch_grid(Size(pixels.shape[2], pixels.shape[3]), self.patch)
        return rearrange(self.projection(pixels), "image dim row column -> image (row column) dim")
