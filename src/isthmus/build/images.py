"""Models that learn from pictures without texts: masked image models and classifiers."""

from pathlib import Path
from typing import assert_never

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.build.vision import build_vision
from isthmus.config.classifier import Classifier
from isthmus.config.masked import (
    CodePredictor,
    DallECodes,
    MaskedImageModel,
    PixelPredictor,
    SmallCodes,
    VisualTokenizer,
)
from isthmus.config.vision import VitVision
from isthmus.core.errors import RecipeError
from isthmus.core.sizes import Size
from isthmus.interop.beit import load_beit
from isthmus.interop.dall_e import load_dall_e
from isthmus.interop.mae import load_mae, read_mae_file
from isthmus.models.classifier import ClassHead
from isthmus.models.classifier import Classifier as ClassifierModel
from isthmus.models.masked_image_model import MaskedImageModel as MaskedImageModelModule
from isthmus.models.visual_tokenizer import VisualTokenizerModel
from isthmus.nn.patches import patch_grid
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.vision.dall_e import DallEShape, dall_e_tokenizer
from isthmus.parts.vision.predictor import CodePredictor as CodePredictorPart
from isthmus.parts.vision.predictor import PixelPredictor as PixelPredictorPart
from isthmus.parts.vision.tokenizer import VisualTokenizer as VisualTokenizerPart
from isthmus.parts.vision.tokenizer import small_tokenizer
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
    codes = None if config.tokenizer is None else _tokenizer(config.tokenizer, config.vision, origin)
    model = MaskedImageModelModule(
        vision=vision,
        predictor=_predictor(config, vision),
        tokenizer=codes,
        normalised=not isinstance(config.predictor, PixelPredictor) or config.predictor.normalised,
    )
    if config.weights is not None and not origin.random:
        _fill(model, config.weights, origin)
    return model


def _predictor(config: MaskedImageModel, vision: ViT) -> PixelPredictorPart | CodePredictorPart:
    match config.predictor:
        case PixelPredictor() as chosen:
            return PixelPredictorPart(
                vision_width=vision.width,
                grid=patch_grid(vision.image_size, config.vision.patch),
                patch=config.vision.patch,
                shape=TransformerShape(
                    width=chosen.width,
                    num_layers=chosen.layers,
                    num_heads=chosen.heads,
                    norm_eps=chosen.norm_eps,
                ),
            )
        case CodePredictor():
            assert config.tokenizer is not None
            return CodePredictorPart(vision_width=vision.width, vocabulary=config.tokenizer.vocabulary)
        case _:
            assert_never(config.predictor)


def build_visual_tokenizer(config: VisualTokenizer, origin: Origin) -> VisualTokenizerModel:
    """A visual tokenizer alone.

    Raises:
        RecipeError: A code cannot stand for that many pixels, or a path does not exist.
        CheckpointError: Weights do not fit.
    """
    return VisualTokenizerModel(tokenizer=_tokenizer(config.tokenizer, config, origin))


def _tokenizer(
    config: SmallCodes | DallECodes, pictures: VisualTokenizer | VitVision, origin: Origin
) -> VisualTokenizerPart:
    """The part that writes pictures, normalised as those of `pictures`, as codes."""
    path = "model.tokenizer"
    match config:
        case SmallCodes():
            try:
                return small_tokenizer(vocabulary=config.vocabulary, patch=config.patch, width=config.width)
            except ValueError as error:
                raise RecipeError(f"{path}: {error}") from error
        case DallECodes():
            shape = DallEShape(
                vocabulary=config.vocabulary,
                width=config.width,
                code_width=config.code_width,
                blocks=config.blocks,
            )
            made = dall_e_tokenizer(shape, patch=config.patch, mean=pictures.mean, std=pictures.std)
            if config.weights is not None and not origin.random:
                folder = Path(locate(config.weights, path=f"{path}.weights")).expanduser()
                load_dall_e(made, folder, name=config.weights)
            return made
        case _:
            assert_never(config)


def _fill(model: MaskedImageModelModule, name: str, origin: Origin) -> None:
    if name.endswith(".safetensors"):
        load_mae(model, read_mae_file(Path(locate(name, path=_WEIGHTS))), name=name)
        return
    source = source_of(name, None, origin, path=_WEIGHTS)
    with reading(name, _WEIGHTS, origin):
        if model.tokenizer is None:
            load_mae(model, source, name=name)
        else:
            load_beit(model, source, name=name)


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


def patches_of(config: MaskedImageModel) -> Size:
    """Patches of a prepared picture, as height and width."""
    side = config.vision.image_size
    return patch_grid(Size(side, side), config.vision.patch)
