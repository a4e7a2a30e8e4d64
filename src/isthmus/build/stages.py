"""What a stage of a recipe means for the stream, the trainer and the losses."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from torch import nn

from isthmus.config.fitting import COMPARING
from isthmus.config.model import LanguageModel, VisualTokenizer
from isthmus.config.recipe import Recipe
from isthmus.config.stages import ObjectiveName, Optimizer, TrainStage
from isthmus.config.vision import VitVision
from isthmus.core.errors import RecipeError
from isthmus.core.protocols import Captions, Contrasts, Matches, Objective, PredictsTokens
from isthmus.data.rows import WORDS_ONLY
from isthmus.data.stream import StreamOptions
from isthmus.data.views import Augmentation
from isthmus.models.dual_encoder import DualEncoder
from isthmus.models.masked_image_model import MaskedImageModel
from isthmus.models.med import Med
from isthmus.models.model import Model
from isthmus.models.visual_tokenizer import VisualTokenizerModel
from isthmus.objectives.captioning import Captioning
from isthmus.objectives.classification import Classification
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.even_codes import EvenCodes
from isthmus.objectives.masked_pixels import MaskedPixels
from isthmus.objectives.masked_tokens import MaskedTokens
from isthmus.objectives.matching import Matching
from isthmus.objectives.momentum_contrastive import MomentumContrastive
from isthmus.objectives.next_token import NextToken
from isthmus.objectives.reconstruction import Reconstruction
from isthmus.objectives.sigmoid import Sigmoid
from isthmus.objectives.uniform_codes import UniformCodes
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.settings import StageSettings


def frozen_inside(stage: TrainStage, model: Model) -> list[nn.Parameter]:
    """The parameters inside the stage's trained parts that stay as they are."""
    inner = model.inner_parts()
    return [parameter for name in stage.freeze for parameter in inner[name].parameters()]


def stream_options(recipe: Recipe, stage: TrainStage, *, rank: int = 0, num_ranks: int = 1) -> StreamOptions:
    """How a stage's data is cut into steps, and those into the parts of several processes."""
    return StreamOptions(
        rows=stage.rows,
        batch_size=stage.batch_size,
        micro_batch_size=stage.micro_batch_size,
        captions=stage.captions,
        seed=recipe.seed,
        stage=stage.name,
        group_by_modality=stage.group_by_modality,
        rank=rank,
        num_ranks=num_ranks,
        num_patches=_num_patches(recipe),
        patches_kept=stage.patches_kept,
        whole=stage.whole,
        compares=any(name in COMPARING for name in stage.objective),
        augmentation=None
        if stage.views is None
        else Augmentation(crop=stage.views.crop, flip=stage.views.flip),
    )


def _num_patches(recipe: Recipe) -> int:
    """Patches of a picture for a ViT of our own, the only encoder that can leave some out; else 0."""
    model = recipe.final_model
    vision = None if isinstance(model, LanguageModel | VisualTokenizer) else model.vision
    return (vision.image_size // vision.patch) ** 2 if isinstance(vision, VitVision) else 0


def stage_settings(recipe: Recipe, stage: TrainStage, *, steps_per_epoch: int) -> StageSettings:
    """How a stage trains; a stage given in epochs gets its number of steps here."""
    num_steps = stage.steps if stage.steps is not None else (stage.epochs or 1) * steps_per_epoch
    return StageSettings(
        stage=stage.name,
        seed=recipe.seed,
        num_steps=num_steps,
        optimizer=optimizer_settings(stage.optimizer),
        validate_every=stage.validation.every if stage.validation is not None else None,
        checkpoint_every=stage.checkpoint_every,
        minutes=stage.minutes,
    )


def optimizer_settings(config: Optimizer) -> OptimizerSettings:
    """How weights move."""
    return OptimizerSettings(
        lr=config.lr,
        lr_by_part=dict(config.lr_by_part),
        weight_decay_by_part=dict(config.weight_decay_by_part),
        weight_decay=config.weight_decay,
        betas=config.betas,
        eps=config.eps,
        schedule=config.schedule,
        warmup_fraction=config.warmup_fraction,
        final_lr_fraction=config.final_lr_fraction,
        clip=config.clip,
        ema=config.ema,
    )


def build_objectives(stage: TrainStage, model: Model) -> Mapping[str, tuple[Objective, float]]:
    """Each objective of a stage with its weight.

    Raises:
        RecipeError: The model cannot serve an objective.
    """
    return {name: (_objective(name, stage, model), weight) for name, weight in stage.objective.items()}


def _objective(name: ObjectiveName, stage: TrainStage, model: Model) -> Objective:
    candidate: object = model
    match name:
        case "next_token":
            if not isinstance(candidate, PredictsTokens):
                raise _unfit(name, stage, model)
            return NextToken(candidate, label_smoothing=stage.label_smoothing)
        case "masked_pixels":
            if not isinstance(candidate, MaskedImageModel) or candidate.tokenizer is not None:
                raise _unfit(name, stage, model)
            return MaskedPixels(patch=candidate.vision.patch_embedding.patch, normalised=candidate.normalised)
        case "masked_tokens":
            if not isinstance(candidate, MaskedImageModel) or candidate.tokenizer is None:
                raise _unfit(name, stage, model)
            return MaskedTokens(candidate)
        case "reconstruction":
            if not isinstance(candidate, VisualTokenizerModel):
                raise _unfit(name, stage, model)
            return Reconstruction()
        case "uniform_codes" | "even_codes":
            if not isinstance(candidate, VisualTokenizerModel):
                raise _unfit(name, stage, model)
            return UniformCodes() if name == "uniform_codes" else EvenCodes()
        case "classification":
            return Classification(label_smoothing=stage.label_smoothing)
        case "contrastive":
            if isinstance(candidate, Med) and candidate.momentum is not None:
                return MomentumContrastive(candidate)
            if not isinstance(candidate, Contrasts):
                raise _unfit(name, stage, model)
            members = candidate.num_members if isinstance(candidate, DualEncoder) else 1
            return Contrastive(candidate, label_smoothing=stage.label_smoothing, num_members=members)
        case "matching":
            if not isinstance(candidate, Matches):
                raise _unfit(name, stage, model)
            return Matching(candidate, hardness=stage.hardness)
        case "captioning":
            if not isinstance(candidate, Captions):
                raise _unfit(name, stage, model)
            return Captioning(candidate, label_smoothing=stage.label_smoothing)
        case "sigmoid":
            if not isinstance(candidate, Contrasts):
                raise _unfit(name, stage, model)
            return Sigmoid(candidate)
        case _:
            assert_never(name)


def _unfit(name: str, stage: TrainStage, model: Model) -> RecipeError:
    return RecipeError(
        f"stage {stage.name}: a {type(model).__name__} cannot serve the objective {name}; choose another"
    )


def sources_of(stages: Sequence[TrainStage]) -> list[str]:
    """Names of the sources whose pictures the stages look at."""
    names = [stage.data for stage in stages if stage.rows not in WORDS_ONLY]
    return names + [
        stage.validation.data
        for stage in stages
        if stage.validation is not None and (stage.validation.rows or stage.rows) not in WORDS_ONLY
    ]
