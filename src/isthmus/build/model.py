"""A model from a recipe: one match over model kinds."""

from typing import Literal, assert_never

import torch

from isthmus.build.checkpoints import Origin
from isthmus.build.dual import build_dual_encoder
from isthmus.build.images import build_classifier, build_masked_image_model, build_visual_tokenizer
from isthmus.build.joining import build_ways
from isthmus.build.language import build_language
from isthmus.build.med import build_med
from isthmus.build.qformer import build_qformer_pretrainer
from isthmus.build.vision import build_vision
from isthmus.build.weights import fill_model, origin_of_parts
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
from isthmus.core.randomness import seed_of
from isthmus.data.vocabulary import Tokenizer
from isthmus.models.language_model import LanguageModelOnly
from isthmus.models.model import Model as BuiltModel
from isthmus.models.vision_language_model import VisionLanguageModel as VisionLanguageModelModule
from isthmus.parts.fusion.newline import Newline
from isthmus.parts.language.language_model import LanguageModel as LanguageModelPart


def build_model(
    config: Model,
    *,
    weights: Literal["random", "pretrained"] = "pretrained",
    device: str = "cpu",
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    frozen: frozenset[str] = frozenset(),
    network_allowed: bool = False,
) -> BuiltModel:
    """Build a model as its recipe says.

    Args:
        config: The `model` block of a recipe.
        weights: `pretrained` reads the named checkpoints; `random` builds the same architecture without them.
        device: Where parameters live; `meta` counts without memory (then weights must be random).
        seed: Drives the initial values of what is not pretrained.
        tokenizer: The trained tokenizer, whose number of ids and special ids the text side takes; None takes the
            recipe's largest number.
        frozen: Parts that no stage trains; they may be rewritten for speed.
        network_allowed: Hub names may be fetched.

    Raises:
        RecipeError: Parts do not exist or do not fit each other.
        CheckpointError: Weights do not fit.
        MachineError: A checkpoint is not on this machine and the network is not allowed.
    """
    origin = Origin(random=weights == "random", network_allowed=network_allowed)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed_of(seed, "weights"))
        model = _assemble(config, origin, tokenizer=tokenizer, frozen=frozen)
    return model.eval()


def _assemble(
    config: Model, origin: Origin, *, tokenizer: Tokenizer | None, frozen: frozenset[str]
) -> BuiltModel:
    match config:
        case VisionLanguageModel():
            first = origin_of_parts(config, origin)
            vision = build_vision(config.vision, first, frozen="vision" in frozen)
            language = build_language(
                config.language,
                first,
                placeholder=config.placeholder,
                tokenizer=tokenizer,
                with_markers=config.has_markers,
            )
            spliced, attention = build_ways(config, vision=vision, language=language.model)
            model = VisionLanguageModelModule(
                vision=vision,
                connector=spliced,
                newline=Newline(language_width=language.model.width) if config.tiles is not None else None,
                language=language.model,
                placeholder_id=language.placeholder_id,
                lora=language.lora,
                attention=attention,
            )
            fill_model(config, model, origin)
            return model
        case DualEncoder():
            return build_dual_encoder(config, origin, tokenizer=tokenizer, frozen=frozen)
        case LanguageModel():
            language = build_language(config.language, origin, tokenizer=tokenizer)
            assert isinstance(language.model, LanguageModelPart)
            return LanguageModelOnly(language=language.model, lora=language.lora)
        case MaskedImageModel():
            return build_masked_image_model(config, origin)
        case VisualTokenizer():
            return build_visual_tokenizer(config, origin)
        case Classifier():
            return build_classifier(config, origin, frozen=frozen)
        case QFormerPretrainer():
            return build_qformer_pretrainer(config, origin, tokenizer=tokenizer, frozen="vision" in frozen)
        case Med():
            return build_med(config, origin, tokenizer=tokenizer, frozen="vision" in frozen)
        case _:
            assert_never(config)
