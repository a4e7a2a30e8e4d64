"""Models that learn from pictures without texts: masked image models and classifiers."""

from pathlib import Path

from isthmus.build.names import locate
from isthmus.build.vision import Origin, build_vision, not_here, source_of
from isthmus.config.classifier import Classifier
from isthmus.config.masked import MaskedImageModel
from isthmus.core.sizes import Size
from isthmus.interop.mae import load_mae, read_mae_file
from isthmus.models.classifier import ClassHead
from isthmus.models.classifier import Classifier as ClassifierModel
from isthmus.models.masked_image_model import MaskedImageModel as MaskedImageModelModule
from isthmus.nn.patches import patch_grid
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.vision.predictor import PixelPredictor
from isthmus.parts.vision.vit import ViT

_WEIGHTS = "model.weights"


def build_masked_image_model(config: MaskedImageModel, origin: Origin) -> MaskedImageModelModule:
    """An encoder and its predictor, with the weights that the recipe names.

    Raises:
        RecipeError: A name does not exist.
        CheckpointError: Weights do not fit.
        MachineError: A checkpoint is not on this machine and the network is not allowed.
    """
    vision = build_vision(config.vision, origin, frozen=False)
    assert isinstance(vision, ViT)
    chosen = config.predictor
    model = MaskedImageModelModule(
        vision=vision,
        predictor=PixelPredictor(
            vision_width=vision.width,
            grid=patch_grid(vision.image_size, config.vision.patch),
            patch=config.vision.patch,
            shape=TransformerShape(
                width=chosen.width,
                num_layers=chosen.layers,
                num_heads=chosen.heads,
                norm_eps=chosen.norm_eps,
            ),
        ),
        normalised=chosen.normalised,
    )
    if config.weights is not None and not origin.random:
        _fill(model, config.weights, origin)
    return model


def _fill(model: MaskedImageModelModule, name: str, origin: Origin) -> None:
    if name.endswith(".safetensors"):
        load_mae(model, read_mae_file(Path(locate(name, path=_WEIGHTS))), name=name)
        return
    try:
        load_mae(model, source_of(name, None, origin, path=_WEIGHTS), name=name)
    except OSError as error:
        raise not_here(name, _WEIGHTS, origin) from error


def build_classifier(config: Classifier, origin: Origin, *, frozen: frozenset[str]) -> ClassifierModel:
    """A vision encoder with a linear layer behind it.

    Raises:
        RecipeError: The encoder cannot give what is asked of it.
        CheckpointError: Weights do not fit.
        MachineError: A checkpoint is not on this machine and the network is not allowed.
    """
    vision = build_vision(config.vision, origin, frozen="vision" in frozen)
    head = ClassHead(
        vision_width=vision.width,
        num_classes=len(config.classes),
        pooling=config.pooling,
        dropout=config.dropout,
    )
    return ClassifierModel(vision=vision, head=head)


def num_patches(config: MaskedImageModel) -> int:
    """Patches of a prepared picture."""
    side = config.vision.image_size
    return patch_grid(Size(side, side), config.vision.patch).area
