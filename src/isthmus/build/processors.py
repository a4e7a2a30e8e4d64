"""The processor of a model: what turns samples into its rows."""

from typing import assert_never

from isthmus.build.masking import build_masking
from isthmus.build.text import build_caption_encoder, build_codec
from isthmus.config.language import EncoderDecoderLanguage
from isthmus.config.med import Med
from isthmus.config.model import (
    Classifier,
    DualEncoder,
    LanguageModel,
    MaskedImageModel,
    Model,
    VisionLanguageModel,
    VisualTokenizer,
)
from isthmus.config.qformer import QFormerPretrainer
from isthmus.core.errors import RecipeError
from isthmus.core.protocols import StoredFeatures
from isthmus.core.sizes import Size
from isthmus.data.classes import ClassProcessor
from isthmus.data.images import ImageProcessor
from isthmus.data.masked import MaskedImageProcessor, PictureProcessor
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.processor import (
    LanguageProcessor,
    PictureReader,
    Processor,
    VisionLanguageProcessor,
)
from isthmus.data.templates import ChatTemplate
from isthmus.data.tiles import Tiler
from isthmus.data.two_sides import SideSplit
from isthmus.data.vocabulary import Tokenizer
from isthmus.models.model import Model as BuiltModel
from isthmus.models.vision_language_model import VisionLanguageModel as VisionLanguageModelModule
from isthmus.nn.pooling import square_side
from isthmus.parts.language.encoder_decoder import EncoderDecoder


def build_processor(
    config: Model,
    model: BuiltModel,
    tokenizer: Tokenizer | None,
    *,
    images: ImageProcessor | None,
    stored: StoredFeatures | None = None,
    prompt: str | None = None,
    template: ChatTemplate | None = None,
) -> Processor:
    """What turns samples into rows of this model.

    Args:
        config: What the recipe says of the model.
        model: The built model, which knows its visual tokens and its placeholder.
        tokenizer: Its tokenizer; None for a model that reads no text.
        images: Prepares pictures; None for a model that sees none.
        stored: The feature store, where one is used.
        prompt: What is asked beside the picture of caption rows.
        template: The chat template of a trained run; None takes the one that the recipe names.

    Raises:
        RecipeError: Pictures of the prepared size do not fit the connector.
    """
    match config:
        case VisionLanguageModel():
            assert isinstance(model, VisionLanguageModelModule)
            assert images is not None
            assert tokenizer is not None
            return VisionLanguageProcessor(
                pictures=_reader(config, images, stored),
                codec=build_codec(config, tokenizer, placeholder_id=model.placeholder_id, template=template),
                tokens_per_image=_tokens_per_image(config, model, images),
                for_each_frame=config.has_tokens_of_frames,
                prompt=prompt,
                sides=_sides(config, model),
            )
        case DualEncoder() | QFormerPretrainer() | Med():
            assert images is not None
            assert tokenizer is not None
            return DualEncoderProcessor(
                pictures=PictureReader(images=images, stored=stored),
                captions=build_caption_encoder(config, tokenizer),
                marks=isinstance(config, DualEncoder) and config.marks_regions,
            )
        case MaskedImageModel() | VisualTokenizer():
            assert images is not None
            return _pictures_alone(config, PictureReader(images=images))
        case Classifier():
            assert images is not None
            pictures = PictureReader(images=images, stored=stored)
            return ClassProcessor(pictures=pictures, classes=config.classes)
        case LanguageModel():
            assert tokenizer is not None
            return LanguageProcessor(
                codec=build_codec(config, tokenizer, placeholder_id=len(tokenizer), template=template)
            )
        case _:
            assert_never(config)


def _pictures_alone(
    config: MaskedImageModel | VisualTokenizer, pictures: PictureReader
) -> MaskedImageProcessor | PictureProcessor:
    """Rows of pictures without texts, some of whose patches are hidden where that is learnt from."""
    if isinstance(config, VisualTokenizer):
        return PictureProcessor(pictures=pictures)
    return MaskedImageProcessor(pictures=pictures, draw=build_masking(config))


def _tokens_per_image(
    config: VisionLanguageModel, model: VisionLanguageModelModule, images: ImageProcessor
) -> int:
    """Places that a picture takes in the text."""
    try:
        tokens_per_image = model.num_places(model.vision.num_tokens(images.size))
        if config.tiles is not None:
            square_side(tokens_per_image)
    except ValueError as error:
        raise RecipeError(f"model.connector: {error}") from error
    return tokens_per_image


def _sides(config: VisionLanguageModel, model: VisionLanguageModelModule) -> SideSplit | None:
    if not isinstance(config.language, EncoderDecoderLanguage):
        return None
    assert isinstance(model.language, EncoderDecoder)
    return SideSplit(start_id=model.language.start_id, prefix=config.language.prefix)


def _reader(
    config: VisionLanguageModel, images: ImageProcessor, stored: StoredFeatures | None
) -> PictureReader:
    tiler = _tiler(config, images)
    return PictureReader(images=images, stored=stored, tiler=tiler, max_frames=config.max_frames)


def _tiler(config: VisionLanguageModel, images: ImageProcessor) -> Tiler | None:
    if config.tiles is None:
        return None
    return Tiler(images=images, grids=tuple(Size(*grid) for grid in config.tiles.grids))
