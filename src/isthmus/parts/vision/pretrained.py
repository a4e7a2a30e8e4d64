"""Vision encoders from Hugging Face folders or the hub: convolutional grids and vision transformers."""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from isthmus.core.sizes import Size
from isthmus.parts.checkpoints import PretrainedSource, load_network
from isthmus.parts.vision.encoder import Features, VisionEncoder
from isthmus.parts.vision.fused import assert_same_output, fuse_batch_norms


class ConvolutionalEncoder(VisionEncoder):
    """A convolutional network's last feature map, every grid position a token (MobileNetV2: 7 x 7)."""

    def __init__(self, *, network: nn.Module, image_size: Size, width: int, stride: int) -> None:
        """Wrap a network whose output has a `last_hidden_state` of shape (image, dim, row, column).

        Args:
            network: The network, in eval mode; its batch norms must never see training mode.
            image_size: The picture size it was trained for.
            width: Channels of the last feature map.
            stride: Pixels between neighbouring grid positions.
        """
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.width = width
        self.stride = stride

    def num_tokens(self, size: Size) -> int:
        """One token a grid position."""
        return -(-size.height // self.stride) * -(-size.width // self.stride)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """All grid positions, row by row, not only the pooled vector."""
        grid = self.network(pixels.contiguous(memory_format=torch.channels_last)).last_hidden_state
        return rearrange(grid, "image dim row column -> image (row column) dim")

    @torch.no_grad()
    def make_fast(self) -> int:
        """Fold batch norms and use channels-last memory; only for a frozen encoder. Returns the number of folded norms.

        Raises:
            ValueError: Folding changed the output.
        """
        probe = torch.rand(2, 3, *self.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        before = self.forward(probe)
        num_fused = fuse_batch_norms(self.network)
        for weight in self.network.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        assert_same_output(before, self.forward(probe))
        return num_fused


class TransformerEncoder(VisionEncoder):
    """A Hugging Face vision transformer's last hidden states."""

    def __init__(
        self, *, network: PreTrainedModel, image_size: Size, patch: int, num_prefix: int, features: Features
    ) -> None:
        """Wrap a network with `last_hidden_state` of shape (image, token, dim).

        Args:
            network: The network.
            image_size: The picture size it was trained for.
            patch: Side of a patch, in pixels.
            num_prefix: Tokens in front of the patches (CLS, registers).
            features: Which tokens leave.
        """
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.width = int(network.config.hidden_size)
        self.patch = patch
        self.num_prefix = num_prefix
        self.features: Features = features
        if features == "cls" and num_prefix == 0:
            raise ValueError(
                "features 'cls' is asked for, but this encoder has no CLS token; use patches or pooled"
            )

    def num_tokens(self, size: Size) -> int:
        """Patches, plus the prefix where it is kept; 1 for a single vector."""
        num_patches = (size.height // self.patch) * (size.width // self.patch)
        return {"patches": num_patches, "all": num_patches + self.num_prefix}.get(self.features, 1)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """The chosen tokens of the last layer."""
        output = self.network(pixels)
        match self.features:
            case "patches":
                return output.last_hidden_state[:, self.num_prefix :]
            case "all":
                return output.last_hidden_state
            case "cls":
                return output.last_hidden_state[:, :1]
            case _:
                return rearrange(output.pooler_output, "image dim -> image 1 dim")


_PREFIX_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0, "vit": 1, "dinov2": 1, "beit": 1}


def load_vision_encoder(source: PretrainedSource, features: Features) -> VisionEncoder:
    """A pretrained encoder by what its configuration says it is.

    Raises:
        ValueError: The architecture is not known here, or it cannot give these features.
        OSError: The folder or name is not there.
    """
    network = load_network(AutoModel, source)
    config = network.config
    vision = network
    if config.model_type in ("clip", "siglip"):
        vision = cast(PreTrainedModel, network.get_submodule("vision_model"))
    if config.model_type == "mobilenet_v2":
        if features != "patches":
            raise ValueError(f"a convolutional encoder gives patches (its grid positions), not '{features}'")
        side = int(config.image_size)
        width = network(torch.zeros(1, 3, 32, 32)).last_hidden_state.shape[1]
        return ConvolutionalEncoder(
            network=network, image_size=Size(side, side), width=width, stride=int(config.output_stride)
        )
    prefix = _PREFIX_TOKENS.get(vision.config.model_type)
    if prefix is None:
        known = ", ".join(["mobilenet_v2", *_PREFIX_TOKENS])
        raise ValueError(f"vision encoders of type '{config.model_type}' are not known; known are {known}")
    side = int(vision.config.image_size)
    return TransformerEncoder(
        network=vision,
        image_size=Size(side, side),
        patch=int(vision.config.patch_size),
        num_prefix=prefix,
        features=features,
    )
