"""Everything one run works with, built once from its recipe."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isthmus.build.checkpoints import Origin
from isthmus.build.features import fill_store, open_store
from isthmus.build.model import build_model
from isthmus.build.processors import build_processor
from isthmus.build.sources import build_source
from isthmus.build.text import build_tokenizer
from isthmus.build.vision import build_image_processor
from isthmus.config.model import LanguageModel, VisualTokenizer
from isthmus.config.recipe import Recipe
from isthmus.config.stages import TrainStage
from isthmus.core.devices import choose_device
from isthmus.core.errors import RecipeError
from isthmus.core.options import RunOptions
from isthmus.data.images import ImageProcessor
from isthmus.data.processor import LanguageProcessor, Processor, VisionLanguageProcessor
from isthmus.data.samples import Source
from isthmus.data.templates import ChatTemplate
from isthmus.data.vocabulary import Tokenizer
from isthmus.models.model import Model
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.vision.encoder import VisionEncoder
from isthmus.training.features import FeatureStore
from isthmus.training.signals import StopSignals


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A recipe's objects.

    Attributes:
        recipe: What was asked for, of this model alone.
        model: The model, on its device.
        tokenizer: Its tokenizer; None for a model that reads no text.
        images: Prepares pictures; None for a model that sees none.
        store: The feature store, or None.
        processor: Makes rows by the language model's template.
        stage_processors: Makes rows for the stages that have a template of their own.
    """

    recipe: Recipe
    model: Model
    tokenizer: Tokenizer | None
    images: ImageProcessor | None
    store: FeatureStore | None
    processor: Processor
    stage_processors: Mapping[str, Processor]

    def processor_of(self, stage: TrainStage) -> Processor:
        """What makes a stage's rows, in training and validation."""
        return self.stage_processors.get(stage.name, self.processor)

    @property
    def template(self) -> ChatTemplate | None:
        """The chat template with this tokenizer's own tokens in it; None for a model that writes no text."""
        if isinstance(self.processor, VisionLanguageProcessor | LanguageProcessor):
            return self.processor.codec.template
        return None

    def source(self, name: str) -> Source:
        """Open one of the recipe's sources."""
        return build_source(self.recipe.data[name], self.recipe.data)

    def store_features(self, names: Iterable[str], stop: StopSignals | None = None) -> float:
        """Encode the pictures of some sources once; returns the seconds it took, 0 where nothing is stored."""
        if self.store is None or self.images is None:
            return 0.0
        return fill_store(
            self.store,
            [self.source(name) for name in dict.fromkeys(names)],
            vision=vision_of(self.model),
            images=self.images,
            check=stop.check if stop is not None else lambda: None,
        )


def vision_of(model: Model) -> VisionEncoder:
    """The vision encoder of a model that has one."""
    vision = model.get_submodule("vision")
    assert isinstance(vision, VisionEncoder)
    return vision


def _start_markers(model: Model, tokenizer: Tokenizer | None) -> None:
    """Let `<|endofchunk|>`, where it has a row of its own, begin as the token that ends a text."""
    rows = model.language.rows if isinstance(model, VisionLanguageModel) else None
    if rows is not None and tokenizer is not None and tokenizer.eos_token_id is not None:
        rows.start_as(rows.num_known + 1, tokenizer.eos_token_id)


def open_workshop(
    recipe: Recipe,
    options: RunOptions,
    *,
    tokenizer_folder: Path | None,
    template: ChatTemplate | None = None,
) -> Workshop:
    """Build everything a run needs for one model.

    Args:
        recipe: The checked recipe; of one with several models, what `Recipe.alone` gives for one of them.
        options: Device and network.
        tokenizer_folder: Where the run keeps a tokenizer that was trained for it.
        template: The chat template of a trained run; None takes the one that the recipe names.

    Raises:
        RecipeError: Parts do not fit each other.
        MachineError: Something named is not on this machine.
    """
    config = recipe.final_model
    device = choose_device(options.device)
    origin = Origin(network_allowed=options.allow_network)
    tokenizer = build_tokenizer(
        config, recipe.data, kept=tokenizer_folder, network_allowed=options.allow_network
    )
    frozen = frozenset(config.part_names) - {part for stage in recipe.training for part in stage.train}
    model = build_model(
        config,
        seed=recipe.seed,
        tokenizer=tokenizer,
        frozen=frozen,
        network_allowed=options.allow_network,
    ).to(device)
    _start_markers(model, tokenizer)
    images, store = None, None
    if not isinstance(config, LanguageModel):
        images = build_image_processor(
            config if isinstance(config, VisualTokenizer) else config.vision, origin
        )
        if recipe.features is not None and recipe.features.store and not isinstance(config, VisualTokenizer):
            store = open_store(recipe.features, config=config.vision, vision=vision_of(model), images=images)
    prompt = recipe.evaluation.prompt if recipe.evaluation is not None else None
    make = partial(build_processor, config, model, tokenizer, images=images, stored=store, prompt=prompt)
    return Workshop(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        images=images,
        store=store,
        processor=make(template=template),
        stage_processors=_stage_processors(recipe, make),
    )


def _stage_processors(recipe: Recipe, make: Callable[..., Processor]) -> dict[str, Processor]:
    """Made before the first stage runs, so that a template which does not fit a later one is refused at once."""
    made = {}
    for name, template in stage_templates(recipe).items():
        try:
            made[name] = make(template=template)
        except RecipeError as error:
            raise RecipeError(f"stage {name}: {error}") from error
    return made


def stage_templates(recipe: Recipe) -> dict[str, ChatTemplate]:
    """The chat templates of the stages that have their own.

    Raises:
        RecipeError: There is no such template.
    """
    found = {}
    for stage in recipe.training:
        if stage.template is not None:
            try:
                found[stage.name] = ChatTemplate.from_name(stage.template)
            except RecipeError as error:
                raise RecipeError(f"stage {stage.name}: {error}") from error
    return found
