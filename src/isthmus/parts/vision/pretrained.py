"""Vision encoders from Hugging Face folders or the hub: convolutional grids and vision transformers."""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from isthmus.core.sizes import Size
from isthmus.parts.checkpoints import PretrainedSource, architecture_of, load_network
from isthmus.parts.vision.alpha import AlphaConvolution, add_alpha
from isthmus.parts.vision.encoder import Features, VisionEncoder
from isthmus.parts.vision.families import FAMILIES, Choice, Reading, build_transformer, last_norm
from isthmus.parts.vision.fused import assert_same_output, fuse_batch_norms


class ConvolutionalEncoder(VisionEncoder):
    """A convolutional network's last feature map, every grid position a token (MobileNetV2, ConvNeXt: 7 x 7).

    What earlier layers say of the pixels of a position may be joined to it (hypercolumns; Hariharan et al., 2015).
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        image_size: Size,
        width: int,
        stride: int,
        pads: bool = True,
        joined: tuple[int, ...] = (),
    ) -> None:
        """Wrap a network whose output has a `last_hidden_state` of shape (image, dim, row, column).

        Args:
            network: The network, in eval mode; its batch norms must never see training mode.
            image_size: The picture size it was trained for.
            width: Channels of the last feature map and of those that are joined to it.
            stride: Pixels between neighbouring grid positions.
            pads: Whether a position that the picture fills in part counts (MobileNetV2) or is cut off (ConvNeXt).
            joined: Entries of `hidden_states` that are joined to the last map, each averaged over a position's pixels.
        """
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.width = width
        self.stride = stride
        self.pads = pads
        self.joined = joined

    def num_tokens(self, size: Size) -> int:
        """One token a grid position."""
        if self.pads:
            return -(-size.height // self.stride) * -(-size.width // self.stride)
        return (size.height // self.stride) * (size.width // self.stride)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """All grid positions, row by row, not only the pooled vector."""
        found = self.network(
            pixels.contiguous(memory_format=torch.channels_last), output_hidden_states=bool(self.joined)
        )
        grid = found.last_hidden_state
        earlier = [
            functional.adaptive_avg_pool2d(found.hidden_states[layer], grid.shape[2:])
            for layer in self.joined
        ]
        return rearrange(torch.cat([grid, *earlier], dim=1), "image dim row column -> image (row column) dim")

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
    """Tokens of a Hugging Face vision transformer, built as far as it is read."""

    def __init__(
        self,
        *,
        network: PreTrainedModel,
        image_size: Size,
        patch: int,
        num_prefix: int,
        features: Features,
        reading: Reading = "last",
    ) -> None:
        """Wrap a network with `last_hidden_state` of shape (image, token, dim).

        Args:
            network: The network.
            image_size: The picture size it was trained for.
            patch: Side of a patch, in pixels.
            num_prefix: Tokens in front of the patches (CLS, registers).
            features: Which tokens leave.
            reading: Which hidden states they are.
        """
        super().__init__()
        self.network = network
        self.image_size = image_size
        config = network.config
        self.width = int(config.projection_dim if features == "projected" else config.hidden_size)
        self.patch = patch
        self.num_prefix = num_prefix
        self.features: Features = features
        self.reading: Reading = reading

    @property
    def alpha(self) -> nn.Module | None:
        """The convolution that reads the fourth channel, where there is one."""
        return next((one.alpha for one in self.network.modules() if isinstance(one, AlphaConvolution)), None)

    def num_tokens(self, size: Size) -> int:
        """Patches, plus the prefix where it is kept; 1 for a single vector."""
        num_patches = (size.height // self.patch) * (size.width // self.patch)
        return {"patches": num_patches, "all": num_patches + self.num_prefix}.get(self.features, 1)

    def forward(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch dim"]:
        """The chosen tokens of the chosen layer."""
        match self.features:
            case "patches":
                return self._tokens(pixels)[:, self.num_prefix :]
            case "all":
                return self._tokens(pixels)
            case "cls":
                return self._tokens(pixels)[:, :1]
            case "pooled":
                return rearrange(self.network(pixels).pooler_output, "image dim -> image 1 dim")
            case "projected":
                return rearrange(self.network(pixels).image_embeds, "image dim -> image 1 dim")

    def _tokens(
        self, pixels: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image token dim"]:
        if self.reading == "before_norm":
            return self.network(pixels, output_hidden_states=[-1]).hidden_states[-1]
        tokens = self.network(pixels).last_hidden_state
        return last_norm(self.network)(tokens) if self.reading == "normalised" else tokens


_CONVOLUTIONAL = ("mobilenet_v2", "convnext")


def mark_regions(encoder: VisionEncoder) -> None:
    """Give the patch convolution inside a Hugging Face network a channel for alpha, at first without any effect.

    Raises:
        ValueError: The encoder has no plain patch convolution.
    """
    for module in encoder.modules():
        for name, child in module.named_children():
            if name == "patch_embedding" and isinstance(child, nn.Conv2d):
                setattr(module, name, add_alpha(child))
                return
    raise ValueError("only CLIP and SigLIP encoders can read alpha; set alpha: false")


def load_vision_encoder(
    source: PretrainedSource,
    features: Features,
    *,
    layer: int | None = None,
    final_norm: bool = True,
    joined: tuple[int, ...] = (),
) -> VisionEncoder:
    """A pretrained encoder by what its configuration says it is.

    Args:
        source: Where its weights come from.
        features: Which tokens leave.
        layer: Whose output they are, as in `hidden_states` of Hugging Face: 0 the embeddings, k what leaves layer k, -1
            the last layer, -2 the one before. Nothing behind it is built. None: the last layer of the whole network.
        final_norm: Whether the last normalisation (CLIP's and SigLIP's `post_layernorm`) is applied to the tokens. It
            was trained for the last layer and is refused at others; CLIP itself applies it to its pooled vector alone.
            Encoders without one for tokens (convolutional ones, BEiT with mean pooling) give the same either way.
        joined: Layers of a convolutional network that are joined to its last one, counted as in `hidden_states`.

    Raises:
        ValueError: The architecture is not known here, or it cannot give what is asked for.
        OSError: The folder or name is not there.
    """
    config = architecture_of(AutoModel, source)
    if config.model_type in _CONVOLUTIONAL:
        return _convolutional(source, config, features, layer=layer, joined=joined)
    if joined:
        raise ValueError(
            f"layers are joined in convolutional encoders alone, but a '{config.model_type}' is given; use joined: []"
        )
    vision = config
    if config.model_type in ("clip", "siglip"):
        vision = cast(PretrainedConfig, config.vision_config)
    if config.model_type == "clip":
        vision.projection_dim = config.projection_dim
    if vision.model_type not in FAMILIES:
        known = ", ".join([*_CONVOLUTIONAL, "clip", "siglip", *FAMILIES])
        raise ValueError(f"vision encoders of type '{config.model_type}' are not known; known are {known}")
    built = build_transformer(vision, source, Choice(features=features, layer=layer, final_norm=final_norm))
    side = int(vision.image_size)
    return TransformerEncoder(
        network=built.network,
        image_size=Size(side, side),
        patch=int(vision.patch_size),
        num_prefix=built.num_prefix,
        features=features,
        reading=built.reading,
    )


def _convolutional(
    source: PretrainedSource,
    config: PretrainedConfig,
    features: Features,
    *,
    layer: int | None,
    joined: tuple[int, ...],
) -> ConvolutionalEncoder:
    if features != "patches":
        raise ValueError(f"a convolutional encoder gives patches (its grid positions), not '{features}'")
    if layer is not None:
        raise ValueError(
            f"a convolutional encoder is read at its end, but layer {layer} is asked for; use layer: null"
        )
    network = load_network(AutoModel, source)
    side = int(config.image_size)
    if config.model_type == "convnext":
        width, stride = (
            int(config.hidden_sizes[-1]),
            int(config.patch_size) * 2 ** (int(config.num_stages) - 1),
        )
    else:
        width = network(torch.zeros(1, 3, 32, 32)).last_hidden_state.shape[1]
        stride = int(config.output_stride)
    widths = _widths(network) if joined else []
    if unknown := [layer for layer in joined if not 0 <= layer < len(widths)]:
        raise ValueError(
            f"joined: found {', '.join(map(str, unknown))}, but the network has layers 0 to {len(widths) - 1}"
        )
    return ConvolutionalEncoder(
        network=network,
        image_size=Size(side, side),
        width=width + sum(widths[layer] for layer in joined),
        stride=stride,
        pads=config.model_type == "mobilenet_v2",
        joined=joined,
    )


@torch.no_grad()
def _widths(network: nn.Module) -> list[int]:
    """Channels of each entry of `hidden_states`."""
    found = network(torch.zeros(1, 3, 64, 64), output_hidden_states=True)
    return [one.shape[1] for one in found.hidden_states]
