"""Vision encoders and image processors from a recipe."""

from pathlib import Path
from typing import assert_never

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.config.masked import VisualTokenizer
from isthmus.config.vision import PretrainedVision, Vision, VitVision
from isthmus.core.errors import CheckpointError, RecipeError
from isthmus.core.sizes import Size
from isthmus.data.images import ImageProcessor
from isthmus.data.preprocessor import processor_of_folder
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.parts.vision.pretrained import ConvolutionalEncoder, load_vision_encoder, mark_regions
from isthmus.parts.vision.views import ViewsEncoder
from isthmus.parts.vision.vit import ViT, ViTForm
from isthmus.training.state import mismatches

_NAME = "model.vision.name"


def build_vision(config: Vision, origin: Origin, *, frozen: bool) -> VisionEncoder:
    """The vision encoder; a frozen convolutional one is made fast.

    Raises:
        RecipeError: The name, or what is asked of the encoder, does not exist.
        CheckpointError: The weights do not fit.
    """
    match config:
        case VitVision():
            return _vit(config, origin)
        case PretrainedVision():
            return _pretrained(config, origin, frozen=frozen)
        case _:
            assert_never(config)


def vit_shape(config: VitVision) -> TransformerShape:
    """Sizes of the blocks."""
    return TransformerShape(
        width=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        ffn_multiple=4.0 if config.ffn is None else config.ffn / config.width,
        norm_eps=config.norm_eps,
        activation=config.activation,
        key_bias=config.key_bias,
        layer_scale=config.layer_scale,
        drop_path=config.drop_path,
    )


def _vit(config: VitVision, origin: Origin) -> ViT:
    form = ViTForm(
        stem=config.stem,
        patch_bias=config.patch_bias,
        cls=config.cls,
        positions=config.positions,
        relative=config.relative,
        mask_token=config.mask_token,
        last_norm=config.last_norm,
        pre_norm=config.pre_norm,
        alpha=config.alpha,
    )
    try:
        encoder = ViT(
            image_size=config.image_size,
            patch=config.patch,
            shape=vit_shape(config),
            features=config.features,
            form=form,
            layer=config.layer,
            final_norm=config.final_norm,
        )
    except ValueError as error:
        raise RecipeError(f"model.vision: {error}") from error
    if config.weights is not None and not origin.random:
        folder = Path(locate(config.weights, path="model.vision.weights"))
        load_part(encoder, folder, part="vision", without=encoder.not_built)
    return encoder


def load_part(module: torch.nn.Module, folder: Path, *, part: str, without: tuple[str, ...] = ()) -> None:
    """Fill a part from `folder/model.safetensors`, whose keys start with the part's name.

    Args:
        module: What is filled.
        folder: Where the weights lie.
        part: Its name.
        without: What the names begin with, inside the part, of tensors that may lie there and are not read.

    Raises:
        CheckpointError: The file is missing or damaged, or keys or shapes differ; every difference is listed.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"there is no {file}; choose a folder that a run or a recipe wrote")
    prefix = f"{part}."
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); make it again or restore it from a copy"
        ) from error
    inside = {
        name.removeprefix(prefix): weight for name, weight in tensors.items() if name.startswith(prefix)
    }
    found = {name: weight for name, weight in inside.items() if not name.startswith(without)}
    expected = module.state_dict()
    wrong = mismatches(found, expected)
    if wrong:
        raise CheckpointError(
            f"the weights in {folder.name} do not fit the part '{part}': {'; '.join(wrong)}"
        )
    module.load_state_dict({name: weight.float() for name, weight in found.items()})


def _pretrained(config: PretrainedVision, origin: Origin, *, frozen: bool) -> VisionEncoder:
    source = source_of(config.name, config.revision, origin, path=_NAME)
    with reading(config.name, _NAME, origin, block="model.vision"):
        encoder = load_vision_encoder(
            source,
            config.features,
            layer=config.layer,
            final_norm=config.final_norm,
            joined=config.joined,
        )
        if config.alpha:
            mark_regions(encoder)
    if frozen and isinstance(encoder, ConvolutionalEncoder) and not origin.random:
        encoder.make_fast()
    return _seen_in_views(config, encoder)


def _seen_in_views(config: PretrainedVision, encoder: VisionEncoder) -> VisionEncoder:
    """The encoder, or one that sees each picture several times."""
    if config.enlarged is not None and not isinstance(encoder, ConvolutionalEncoder):
        raise RecipeError(
            f"model.vision.enlarged: found {config.enlarged}, but '{config.name}' is a transformer with positions for "
            "one size; only convolutional encoders see enlarged pictures, so use enlarged: null"
        )
    if not config.mirrored and config.enlarged is None:
        return encoder
    return ViewsEncoder(encoder=encoder, mirrored=config.mirrored, enlarged=config.enlarged)


def build_image_processor(config: Vision | VisualTokenizer, origin: Origin) -> ImageProcessor:
    """How pictures become pixels for this encoder.

    Raises:
        MachineError: The encoder's preprocessor file is not on this machine.
        RecipeError: The file cannot be used.
    """
    match config:
        case VitVision() | VisualTokenizer():
            return ImageProcessor(
                size=Size(config.image_size, config.image_size),
                resize=config.resize,
                mean=config.mean,
                std=config.std,
            )
        case PretrainedVision():
            with reading(config.name, _NAME, origin):
                return processor_of_folder(
                    locate(config.name, path=_NAME),
                    resize=config.resize,
                    local_only=not origin.network_allowed,
                )
        case _:
            assert_never(config)
