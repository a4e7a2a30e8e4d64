"""Whether the blocks of a recipe fit each other: names that are used exist, and objectives suit the model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from isthmus.config import fitting_capfilt, fitting_clips, fitting_dual, fitting_instruct
from isthmus.config.base import Mistake, one_of
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.data import MixtureSource, Source
from isthmus.config.dual import PretrainedText
from isthmus.config.evaluation import Evaluation
from isthmus.config.instruct import InstructStage
from isthmus.config.language import LlamaLanguage, PretrainedLanguage, TrainedTokenizer
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
from isthmus.config.stages import Stage, TrainStage
from isthmus.config.vision import PretrainedVision

OBJECTIVES = {
    "vision_language_model": ("next_token",),
    "dual_encoder": ("contrastive", "sigmoid"),
    "language_model": ("next_token",),
    "masked_image_model": ("masked_pixels", "masked_tokens"),
    "visual_tokenizer": ("reconstruction", "uniform_codes", "even_codes"),
    "classifier": ("classification",),
    "qformer_pretrainer": ("contrastive", "matching", "captioning"),
    "med": ("contrastive", "matching", "captioning"),
}
"""What each model kind can learn by."""

COMPARING = ("contrastive", "sigmoid", "matching")
"""Objectives that compare each picture with all texts of the batch."""

ROWS = {
    "vision_language_model": ("captions", "questions", "conversations", "text", "text_answers"),
    "dual_encoder": ("captions", "regions"),
    "language_model": ("text", "text_answers"),
    "masked_image_model": ("pictures",),
    "visual_tokenizer": ("pictures",),
    "classifier": ("classes",),
    "qformer_pretrainer": ("captions",),
    "med": ("captions",),
}
"""What each model kind can read."""

TASKS = {
    "vision_language_model": ("captioning", "questions"),
    "dual_encoder": ("retrieval", "zero_shot", "probe", "regions"),
    "language_model": (),
    "masked_image_model": ("reconstruction", "probe"),
    "visual_tokenizer": ("reconstruction",),
    "classifier": ("classification", "probe"),
    "qformer_pretrainer": ("retrieval", "captioning"),
    "med": ("retrieval", "captioning"),
}
"""What each model kind can be judged by."""


def mistakes_between(
    *,
    data: Mapping[str, Source],
    models: Mapping[str | None, Model],
    final: str | None,
    stores_features: bool,
    stages: Sequence[Stage],
    evaluation: Evaluation | None,
) -> list[Mistake]:
    """Everything that does not fit, each with its path from the top of the recipe.

    `models` are named as `Recipe.named_models` names them, and `final` is the one that is evaluated.
    """
    mistakes = [*_names(data, models, stages, evaluation)]
    for name, model in models.items():
        if isinstance(model, VisionLanguageModel) and model.tiles is not None:
            mistakes += _tiles(_place(name), model, stores_features=stores_features)
    for index, stage in enumerate(stages):
        mistakes += _names_of_stages(index, stage, stages[:index])
        if isinstance(stage, CapfiltStage):
            mistakes += fitting_capfilt.mistakes(index, stage, models, stages[:index], data)
            continue
        if isinstance(stage, InstructStage):
            mistakes += fitting_instruct.mistakes(index, stage, models, stages[:index])
            continue
        mistakes += _stage(index, stage, models[stage.model], stages[:index], stores_features=stores_features)
        mistakes += fitting_clips.shown(index, stage, models[stage.model], data)
        if stores_features and "vision" in stage.train:
            mistakes.append(_learning_vision(index))
    if stores_features and all(isinstance(model, LanguageModel) for model in models.values()):
        allowed = "null, because a language_model has no vision encoder"
        mistakes.append(Mistake(path=("features",), found="a feature store", allowed=allowed))
    mistakes += fitting_clips.judged(models[final], evaluation, data) if evaluation is not None else ()
    mistakes += fitting_clips.stored(data) if stores_features else ()
    model = models[final]
    mistakes += fitting_dual.judged(model, evaluation) if evaluation is not None else ()
    marks = any(isinstance(one, DualEncoder) and one.marks_regions for one in models.values())
    if stores_features and marks:
        allowed = "null, because stored features know no region; encode live"
        mistakes.append(Mistake(path=("features",), found="a feature store", allowed=allowed))
    tasks = TASKS[model.kind]
    if evaluation is not None and evaluation.task not in tasks:
        found, allowed = f"'{evaluation.task}'", f"{one_of(tasks)} (model.kind is {model.kind})"
        mistakes.append(Mistake(path=("evaluation", "task"), found=found, allowed=allowed, choices=tasks))
    return mistakes


def _place(name: str | None) -> tuple[str, ...]:
    """Where a model stands in the recipe."""
    return ("model",) if name is None else ("models", name)


def tokenizer_of(model: Model) -> tuple[tuple[str, ...], TrainedTokenizer] | None:
    """The tokenizer that has to be trained first and where it stands in the model's block, or None."""
    match model:
        case DualEncoder() | QFormerPretrainer() | Med():
            tokenizer = None if isinstance(model.text, PretrainedText) else model.text.tokenizer
            return (("text", "tokenizer"), tokenizer) if isinstance(tokenizer, TrainedTokenizer) else None
        case VisionLanguageModel() | LanguageModel():
            if isinstance(model.language, LlamaLanguage):
                return ("language", "tokenizer"), model.language.tokenizer
            return None
        case MaskedImageModel() | VisualTokenizer() | Classifier():
            return None
        case _:
            assert_never(model)


def _names(
    data: Mapping[str, Source],
    models: Mapping[str | None, Model],
    stages: Sequence[Stage],
    evaluation: Evaluation | None,
) -> Iterator[Mistake]:
    used: list[tuple[tuple[str | int, ...], str]] = []
    for index, stage in enumerate(stages):
        if isinstance(stage, InstructStage):
            continue
        made = fitting_capfilt.made_by(stages[:index])
        mine: list[tuple[tuple[str | int, ...], str]] = [(("stages", index, "data"), stage.data)]
        if isinstance(stage, TrainStage) and stage.validation is not None:
            mine.append((("stages", index, "validation", "data"), stage.validation.data))
        used += [(path, name) for path, name in mine if name not in made]
    if evaluation is not None:
        used += [(("evaluation", "val"), evaluation.val), (("evaluation", "test"), evaluation.test)]
        used += [(("evaluation", "train"), evaluation.train)] if evaluation.train is not None else []
    for model_name, model in models.items():
        if (trained := tokenizer_of(model)) is not None:
            used.append(((*_place(model_name), *trained[0], "data"), trained[1].data))
    for top, source in data.items():
        for name in source.parts if isinstance(source, MixtureSource) else ():
            used.append((("data", top, "parts", name), name))
            if isinstance(data.get(name), MixtureSource):
                found, allowed = f"'{name}', a mixture", "sources that are no mixtures themselves"
                yield Mistake(path=("data", top, "parts", name), found=found, allowed=allowed)
    for path, name in used:
        if name not in data:
            allowed = f"a name under data: {one_of(tuple(data))}"
            yield Mistake(path=path, found=f"'{name}'", allowed=allowed, choices=tuple(data))


def _names_of_stages(index: int, stage: Stage, earlier: Sequence[Stage]) -> Iterator[Mistake]:
    if stage.name in {other.name for other in earlier}:
        path = ("stages", index, "name")
        yield Mistake(path=path, found=f"'{stage.name}' again", allowed="a name no other stage has")


def _stage(
    index: int, stage: TrainStage, model: Model, earlier: Sequence[Stage], *, stores_features: bool
) -> Iterator[Mistake]:
    path = ("stages", index)
    names = tuple(other.name for other in earlier if isinstance(other, TrainStage))
    if stage.start_from is not None and "/" not in stage.start_from and stage.start_from not in names:
        allowed = f"an earlier stage ({one_of(names)}) or a run directory written with a '/'"
        found = f"'{stage.start_from}'"
        yield Mistake(path=(*path, "start_from"), found=found, allowed=allowed, choices=names)
    for position, name in enumerate(stage.train):
        if name not in model.part_names:
            writes = isinstance(model, VisionLanguageModel | LanguageModel)
            hint = "; lora needs model.language.lora" if name == "lora" and writes else ""
            allowed = f"parts of this {model.kind}: {one_of(model.part_names)}{hint}"
            place = (*path, "train", position)
            yield Mistake(path=place, found=f"'{name}'", allowed=allowed, choices=model.part_names)
        elif name in stage.train[:position]:
            yield Mistake(path=(*path, "train", position), found=f"'{name}' again", allowed="each part once")
    yield from _inner(path, stage, model)
    yield from _recomputed(path, stage, model)
    yield from fitting_dual.patches_kept(path, stage, model, stores_features=stores_features)
    for name in stage.objective:
        if name not in OBJECTIVES[model.kind]:
            allowed = f"{one_of(OBJECTIVES[model.kind])} (model.kind is {model.kind})"
            yield Mistake(path=(*path, "objective", name), found=f"'{name}'", allowed=allowed)
    if stage.captions == "each" and not any(name in stage.objective for name in COMPARING):
        allowed = f"one or all; several captions in one row only suit the objectives {one_of(COMPARING)}"
        yield Mistake(path=(*path, "captions"), found="'each'", allowed=allowed)
    if any(name in stage.objective for name in COMPARING) and stage.batch_size < 2:
        allowed = "2 or more, because a picture is compared with the texts of others"
        yield Mistake(path=(*path, "batch_size"), found=str(stage.batch_size), allowed=allowed)
    if stage.micro_batch_size not in (None, stage.batch_size) and (why := _whole_batch(stage, model)):
        place, found = (*path, "micro_batch_size"), str(stage.micro_batch_size)
        yield Mistake(path=place, found=found, allowed=f"null, because {why}")
    yield from _sigmoid(path, stage, model)
    yield from fitting_dual.views(path, stage, stores_features=stores_features)
    yield from fitting_dual.regions(path, stage, model)
    yield from fitting_dual.members(path, stage, model)
    if "language" in stage.train and _is_quantized(model):
        allowed = "lora and other parts, because model.language.quantize keeps the language model in 4 bits"
        place = (*path, "train", stage.train.index("language"))
        yield Mistake(path=place, found="'language'", allowed=allowed)
    if stage.template is not None and not isinstance(model, VisionLanguageModel | LanguageModel):
        allowed = f"null, because a {model.kind} reads no text with a chat template"
        yield Mistake(path=(*path, "template"), found=f"'{stage.template}'", allowed=allowed)
    rows: list[tuple[tuple[str, ...], str]] = [(("rows",), stage.rows)]
    if stage.validation is not None and stage.validation.rows is not None:
        rows.append((("validation", "rows"), stage.validation.rows))
    for below, word in rows:
        if word not in ROWS[model.kind]:
            allowed = f"{one_of(ROWS[model.kind])} (model.kind is {model.kind})"
            yield Mistake(path=(*path, *below), found=f"'{word}'", allowed=allowed, choices=ROWS[model.kind])


def _whole_batch(stage: TrainStage, model: Model) -> str | None:
    """Why a stage's batches cannot be looked at in parts, or None."""
    if "matching" in stage.objective:
        return "hard negatives are drawn from the whole batch"
    if isinstance(model, Med) and model.momentum is not None and "contrastive" in stage.objective:
        return "model.momentum compares the whole batch with what it remembers"
    return "even_codes counts the codes of the whole batch" if "even_codes" in stage.objective else None


def _sigmoid(path: tuple[str | int, ...], stage: TrainStage, model: Model) -> Iterator[Mistake]:
    if "sigmoid" in stage.objective:
        if stage.label_smoothing:
            allowed = "0.0, because sigmoid judges each pair alone and has no targets to spread"
            place, found = (*path, "label_smoothing"), str(stage.label_smoothing)
            yield Mistake(path=place, found=found, allowed=allowed)
    elif isinstance(model, DualEncoder) and model.bias_init is not None and "scale" in stage.train:
        allowed = "sigmoid among them, because other objectives give model.bias_init no gradient; or bias_init: null"
        yield Mistake(path=(*path, "objective"), found=one_of(tuple(stage.objective)), allowed=allowed)


def _tiles(place: tuple[str, ...], model: VisionLanguageModel, *, stores_features: bool) -> Iterator[Mistake]:
    keeps_grids = ("linear", "mlp", "pixel_shuffle")
    if model.connector is not None and model.connector.kind not in keeps_grids:
        allowed = f"{one_of(keeps_grids)}, which keep the grid of patches, because model.tiles joins tiles row by row"
        path, found = (*place, "connector", "kind"), f"'{model.connector.kind}'"
        yield Mistake(path=path, found=found, allowed=allowed, choices=keeps_grids)
    if model.vision.features != "patches":
        found, allowed = f"'{model.vision.features}'", "patches, because model.tiles joins grids of patches"
        yield Mistake(path=(*place, "vision", "features"), found=found, allowed=allowed)
    if isinstance(model.vision, PretrainedVision) and model.vision.has_views:
        allowed = "one view, because model.tiles joins grids of patches; leave mirrored and enlarged out"
        yield Mistake(path=(*place, "vision"), found="several views of each tile", allowed=allowed)
    if stores_features:
        allowed = "null, because pictures that are cut have different numbers of tiles and are encoded live"
        yield Mistake(path=("features",), found="a feature store", allowed=allowed)


def _inner(path: tuple[str | int, ...], stage: TrainStage, model: Model) -> Iterator[Mistake]:
    known = tuple(model.inner_parts)
    for position, name in enumerate(stage.freeze):
        place = (*path, "freeze", position)
        if name not in known:
            allowed = f"what lies inside parts of this {model.kind}: {one_of(known)}"
            yield Mistake(path=place, found=f"'{name}'", allowed=allowed, choices=known)
        elif model.inner_parts[name] not in stage.train:
            allowed = f"nothing, because this stage does not train {model.inner_parts[name]} at all"
            yield Mistake(path=place, found=f"'{name}'", allowed=allowed)


def _is_quantized(model: Model) -> bool:
    language = model.language if isinstance(model, VisionLanguageModel | LanguageModel) else None
    return isinstance(language, PretrainedLanguage) and language.quantize is not None


def _recomputed(path: tuple[str | int, ...], stage: TrainStage, model: Model) -> Iterator[Mistake]:
    for position, name in enumerate(stage.recompute):
        place = (*path, "recompute", position)
        if name not in model.part_names or name == "lora":
            known = tuple(part for part in model.part_names if part != "lora")
            allowed = f"parts that are stacks of layers: {one_of(known)}"
            yield Mistake(path=place, found=f"'{name}'", allowed=allowed, choices=known)
        elif name == "vision" and name not in stage.train:
            allowed = "vision only where the stage trains it; a frozen vision encoder keeps no activations"
            yield Mistake(path=place, found="'vision'", allowed=allowed)


def _learning_vision(index: int) -> Mistake:
    allowed = "frozen vision only, because features.store is true; set features: null to train vision"
    return Mistake(path=("stages", index, "train"), found="'vision'", allowed=allowed)
