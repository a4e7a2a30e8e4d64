"""A fourth input channel that says which region is meant (Sun et al., 2024, Alpha-CLIP, section 3.2)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class AlphaConvolution(nn.Conv2d):
    """A patch convolution beside one for alpha, whose results are added.

    The alpha convolution has no bias and starts at zero, so that a picture first gives what it gave before, whatever
    is marked. One convolution of four channels whose fourth weights are zero is the same map; two keep the published
    weights' names and let alpha learn at a rate of its own, as the published code trains it.
    """

    def __init__(self, *, like: nn.Conv2d) -> None:
        """Build one with the sizes of `like`, a patch convolution: its kernel is its stride and nothing is padded."""
        (height, width), channels = like.kernel_size, like.in_channels
        kernel = (height, width)
        super().__init__(channels, like.out_channels, kernel, stride=kernel, bias=like.bias is not None)
        self.alpha = nn.Conv2d(1, like.out_channels, kernel, stride=kernel, bias=False)
        nn.init.zeros_(self.alpha.weight)

    def forward(
        self, input: Float[Tensor, "image four height width"]
    ) -> Float[Tensor, "image dim row column"]:
        """Colours by the one, alpha by the other.

        Raises:
            ValueError: The pictures come without alpha.
        """
        if input.shape[1] != self.in_channels + 1:
            raise ValueError(
                f"this encoder reads {self.in_channels} colour channels and alpha, but pictures of {input.shape[1]} "
                "channels came; give each picture a mask (all of it marked where no region is meant)"
            )
        return super().forward(input[:, :-1]) + self.alpha(input[:, -1:])


def add_alpha(convolution: nn.Conv2d) -> AlphaConvolution:
    """The convolution with an alpha channel; its own weights stay."""
    made = AlphaConvolution(like=convolution)
    made.weight = convolution.weight
    made.bias = convolution.bias
    return made


def with_fourth_channel(
    weight: Float[Tensor, "dim 3 height width"], alpha: Float[Tensor, "dim 1 height width"]
) -> Float[Tensor, "dim 4 height width"]:
    """The weights of the one convolution that does the same."""
    return torch.cat([weight, alpha], dim=1)
