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


def patchify(
    pixels: Float[Tensor, "image channel height width"], patch: int
) -> Float[Tensor, "image patch value"]:
    """Each patch as one vector of its pixels: rows, columns, channels, as MAE's published code orders them.

    Raises:
        ValueError: The patch does not divide the picture.
    """
    patch_grid(Size(pixels.shape[2], pixels.shape[3]), patch)
    return rearrange(
        pixels,
        "image channel (row y) (column x) -> image (row column) (y x channel)",
        y=patch,
        x=patch,
    )


def unpatchify(
    patches: Float[Tensor, "image patch value"], patch: int, grid: Size
) -> Float[Tensor, "image channel height width"]:
    """The picture that `patchify` cut up; `grid` counts its patches."""
    return rearrange(
        patches,
        "image (row column) (y x channel) -> image channel (row y) (column x)",
        row=grid.height,
        column=grid.width,
        y=patch,
        x=patch,
    )


class ConvolutionalStem(nn.Module):
    """Small strided convolutions in place of one large one (Xiao et al., 2021, section 4).

    The grid is the same as with `PatchEmbedding`, but shapes are seen before positions are mixed, so that a
    small encoder learns them from few pictures.
    """

    def __init__(self, *, patch: int, width: int, channels: int = 3) -> None:
        """Build one convolution of stride 2 for each halving.

        Args:
            patch: Pixels a grid cell covers; a power of two, at least 2.
            width: Size of a token.
            channels: Channels of the picture.

        Raises:
            ValueError: `patch` is no power of two.
        """
        super().__init__()
        halvings = patch.bit_length() - 1
        if patch != 2**halvings or halvings == 0:
            raise ValueError(
                f"a convolutional stem halves the picture again and again, so patch {patch} must be 2, 4, 8, ..."
            )
        self.patch = patch
        layers: list[nn.Module] = []
        before = channels
        for step in range(halvings):
            after = max(width // 2 ** (halvings - 1 - step), min(width, 32))
            layers += [
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1),
                nn.GroupNorm(4, after),
                nn.GELU(),
            ]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, width, kernel_size=1))

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """Embed every grid cell."""
        patch_grid(Size(pixels.shape[2], pixels.shape[3]), self.patch)
        return rearrange(self.layers(pixels), "image dim row column -> image (row column) dim")


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
