"""What stands behind a masked encoder while it learns: from what it saw to pixels (MAE) or codes (BEiT)."""

from typing import final

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.core.sizes import Size
from isthmus.nn.positions import FixedGridPositions
from isthmus.nn.transformer import Transformer, TransformerShape


@final
class PixelPredictor(nn.Module):
    """Narrow transformer blocks over seen tokens and mask tokens (He et al., 2022, section 3 and appendix A.1).

    Tokens get back to where their patches are, every other place holds one learned mask token, and all get fixed
    positions. The order in which the seen patches come does not matter.

    Args:
        vision_width: Size of the encoder's tokens.
        grid: Patches of the pictures it is made for, as height and width.
        patch: Side of a patch, in pixels.
        shape: Sizes of its blocks.
    """

    def __init__(self, *, vision_width: int, grid: Size, patch: int, shape: TransformerShape) -> None:
        super().__init__()
        self.embed = nn.Linear(vision_width, shape.width)
        self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(shape.width), std=0.02))
        self.positions = FixedGridPositions(grid=grid, width=shape.width, stored=True)
        self.transformer = Transformer(shape)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.head = nn.Linear(shape.width, 3 * patch**2)

    def forward(
        self,
        tokens: Float[Tensor, "image seen dim"],
        kept: Int[Tensor, "image kept"],
        grid: Size,
    ) -> Float[Tensor, "image patch value"]:
        """The pixels of every patch, each as rows, columns, channels.

        Args:
            tokens: What the encoder gave: CLS, then the patches it saw.
            kept: Places of these patches in the flattened grid, in the same order.
            grid: Height and width of the whole grid.
        """
        seen = self.embed(tokens)
        if seen.dtype != self.mask_token.dtype:  # half precision inside autocast
            seen = seen.to(self.mask_token.dtype)
        num_images = seen.shape[0]
        places = repeat(self.mask_token, "dim -> image patch dim", image=num_images, patch=grid.area)
        index = rearrange(kept, "image kept -> image kept 1").expand(-1, -1, seen.shape[2])
        places = places.scatter(1, index, seen[:, 1:]) + self.positions(grid)
        # CLS has the position zero, as in the published tables.
        every = self.transformer(torch.cat([seen[:, :1], places], dim=1))
        return self.head(self.norm(every))[:, 1:]


@final
class CodePredictor(nn.Module):
    """One linear layer from an encoder's patch to a score for each code (Bao et al., 2022, section 2.3).

    Args:
        vision_width: Size of the encoder's tokens.
        vocabulary: How many codes there are.
    """

    def __init__(self, *, vision_width: int, vocabulary: int) -> None:
        super().__init__()
        self.head = nn.Linear(vision_width, vocabulary)

    def forward(self, patches: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image patch code"]:
        """Scores of every code for every patch."""
        return self.head(patches)
