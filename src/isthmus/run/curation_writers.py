"""A language model of this machine as a writer of instruction data: a Hugging Face folder, a run, a recipe's."""

from pathlib import Path

from isthmus.build.model import build_model
from isthmus.build.processors import build_processor
from isthmus.build.text import build_tokenizer
from isthmus.build.workshop import open_workshop
from isthmus.config.instructions import WriterOptions
from isthmus.config.language import LlamaLanguage, PretrainedLanguage
from isthmus.config.load import load_recipe, recipe_hash, shipped_names
from isthmus.config.model import LanguageModel
from isthmus.core.devices import choose_device
from isthmus.core.errors import UsageError
from isthmus.core.options import RunOptions
from isthmus.curation.instructions.local import LocalWriter
from isthmus.data.processor import LanguageProcessor
from isthmus.generation.decode import Decoding
from isthmus.models.language_model import LanguageModelOnly
from isthmus.run.directory import RunDirectory
from isthmus.run.load import load


def local_writer(by: WriterOptions, options: RunOptions) -> LocalWriter:
    """Open what `--local` names.

    Raises:
        UsageError: It is not there, another kind of model, or a recipe's with random weights.
        CheckpointError: It is a run that is not finished, or damaged.
        RecipeError: It is a recipe with mistakes.
    """
    assert by.local is not None
    if RunDirectory(by.local).recipe_file.is_file():
        workshop = load(by.local, options).workshop
        model, processor = workshop.model, workshop.processor
    elif _is_recipe(by.local):
        model, processor = _named(by.local, options)
    elif not by.local.is_dir():
        raise UsageError(
            f"--local is '{by.local}', which is no folder and no recipe; expected a Hugging Face folder of a language "
            "model, a run, or a recipe"
        )
    else:
        model, processor = _opened(by.local, by.template, options)
    return writer_of(
        model,
        processor,
        whose=str(by.local),
        temperature=by.temperature,
        max_tokens=by.max_tokens,
        seed=options.seed or 0,
    )


def writer_of(
    model: object, processor: object, *, whose: str, temperature: float, max_tokens: int, seed: int
) -> LocalWriter:
    """A model with its processor as a writer; `whose` names it in messages.

    Raises:
        UsageError: It is no language model alone.
    """
    if not isinstance(model, LanguageModelOnly) or not isinstance(processor, LanguageProcessor):
        raise UsageError(f"{whose} holds a model that reads pictures; expected a language model alone")
    decoding = Decoding(
        method="sample" if temperature > 0 else "greedy",
        temperature=temperature or 1.0,
        max_new_tokens=max_tokens,
    )
    return LocalWriter(model=model, processor=processor, decoding=decoding, seed=seed)


def local_name(by: WriterOptions) -> str:
    """Everything that decides what a local writer writes."""
    assert by.local is not None
    if _is_recipe(by.local):
        recipe = load_recipe(by.local.as_posix())
        return f"{recipe.name} {recipe_hash(recipe)[:12]}, {drawn_by(by)}"
    return f"{by.local.name}, template {by.template}, {drawn_by(by)}"


def drawn_by(by: WriterOptions) -> str:
    """How replies are drawn."""
    return f"temperature {by.temperature:g}, at most {by.max_tokens} tokens"


def _is_recipe(named: Path) -> bool:
    """Whether `--local` names a recipe, by its file or as shipped, and no folder."""
    is_file = named.suffix in (".yaml", ".yml") and named.is_file()
    return is_file or (not named.exists() and named.as_posix() in shipped_names())


def _named(named: Path, options: RunOptions) -> tuple[object, object]:
    """The language model that a recipe hands on, as it was published; nothing is trained for it."""
    recipe = load_recipe(named.as_posix())
    config = recipe.final_model
    if not isinstance(config, LanguageModel):
        raise UsageError(f"the recipe {named} makes a {config.kind}; expected a language_model")
    if isinstance(config.language, LlamaLanguage):
        raise UsageError(
            f"the recipe {named} begins with random weights; train it, and give the run's folder instead"
        )
    workshop = open_workshop(recipe.alone(recipe.final_name), options, tokenizer_folder=None)
    workshop.model.eval().requires_grad_(requires_grad=False)
    return workshop.model, workshop.processor


def _opened(folder: Path, template: str, options: RunOptions) -> tuple[object, object]:
    language = PretrainedLanguage(name=str(folder), template=template)
    config = LanguageModel(language=language)
    tokenizer = build_tokenizer(config, {}, kept=None, network_allowed=options.allow_network)
    model = build_model(
        config,
        seed=0,
        tokenizer=tokenizer,
        frozen=frozenset(config.part_names),
        network_allowed=options.allow_network,
    ).to(choose_device(options.device))
    model.eval().requires_grad_(requires_grad=False)
    assert isinstance(model, LanguageModelOnly)
    # Many tokenizers do not say how much their model reads; its own configuration does.
    context = model.language.num_positions
    config = LanguageModel(language=language.model_copy(update={"context": context}))
    return model, build_processor(config, model, tokenizer, images=None)
