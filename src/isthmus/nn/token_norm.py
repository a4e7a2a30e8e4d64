"""What brings an encoder's tokens to even sizes before they are read."""

from typing import Literal, assert_never, final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["token", "channel", "none"]
"""A layer norm on each token; each channel to zero mean and unit spread over all tokens; nothing."""


def token_norm(kind: Norm, width: int) -> nn.Module:
    """The module for tokens of `width` channels."""
    match kind:
        case "token":
            return nn.LayerNorm(width)
        case "channel":
            return ChannelNorm(width, affine=False)
        case "none":
            return nn.Identity()
        case _:
            assert_never(kind)


@final
class ChannelNorm(nn.BatchNorm1d):
    """Batch norm without weights over all tokens of all pictures, for a convolutional encoder's unequal channels."""

    def forward(self, input: Float[Tensor, "image patch dim"]) -> Float[Tensor, "image patch dim"]:
        """Each channel with zero mean and unit spread, by the batch in training and by what was seen there later."""
        flat = super().forward(rearrange(input, "image patch dim -> (image patch) dim"))
        return rearrange(flat, "(image patch) dim -> image patch dim", image=input.shape[0])
