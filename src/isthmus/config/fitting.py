"""Whether the blocks of a recipe fit each other: names that are used exist, and objectives suit the model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from isthmus.config.base import Mistake, one_of
from isthmus.config.data import MixtureSource, Source
from isthmus.config.evaluation import Evaluation
from isthmus.config.language import LlamaLanguage, PretrainedLanguage, TrainedTokenizer
from isthmus.config.model import DualEncoder, LanguageModel, Model, VisionLanguageModel
from isthmus.config.qformer import QFormerPretrainer
from isthmus.config.stages import Stage

OBJECTIVES = {
    "vision_language_model": ("next_token",),
    "dual_encoder": ("contrastive",),
    "language_model": ("next_token",),
    "qformer_pretrainer": ("contrastive", "matching", "captioning"),
}
"""What each model kind can learn by."""

ROWS = {
    "vision_language_model": ("captions", "questions", "conversations", "text", "text_answers"),
    "dual_encoder": ("captions",),
    "language_model": ("text", "text_answers"),
    "qformer_pretrainer": ("captions",),
}
"""What each model kind can read."""

TASKS = {
    "vision_language_model": ("captioning", "questions"),
    "dual_encoder": ("retrieval",),
    "language_model": (),
    "qformer_pretrainer": ("retrieval",),
}
"""What each model kind can be judged by."""


def mistakes_between(
    *,
    data: Mapping[str, Source],
    model: Model,
    stores_features: bool,
    stages: Sequence[Stage],
    evaluation: Evaluation | None,
) -> list[Mistake]:
    """Everything that does not fit, each with its path from the top of the recipe."""
    mistakes = [*_names(data, model, stages, evaluation)]
    if isinstance(model, VisionLanguageModel) and model.tiles is not None:
        mistakes += _tiles(model, stores_features=stores_features)
    for index, stage in enumerate(stages):
        mistakes += _stage(index, stage, model, stages[:index])
        if stores_features and "vision" in stage.train:
            mistakes.append(_learning_vision(index))
    if stores_features and isinstance(model, LanguageModel):
        allowed = "null, because a language_model has no vision encoder"
        mistakes.append(Mistake(path=("features",), found="a feature store", allowed=allowed))
    if evaluation is not None and evaluation.task not in TASKS[model.kind]:
        found, allowed = f"'{evaluation.task}'", f"{one_of(TASKS[model.kind])} (model.kind is {model.kind})"
        mistakes.append(
            Mistake(path=("evaluation", "task"), found=found, allowed=allowed, choices=TASKS[model.kind])
        )
    return mistakes


def tokenizer_of(model: Model) -> tuple[tuple[str, ...], TrainedTokenizer] | None:
    """The tokenizer that has to be trained first and where it stands in the recipe, or None."""
    match model:
        case DualEncoder():
            return ("model", "text", "tokenizer"), model.text.tokenizer
        case QFormerPretrainer():
            words = model.text.tokenizer
            return (("model", "text", "tokenizer"), words) if isinstance(words, TrainedTokenizer) else None
        case VisionLanguageModel() | LanguageModel():
            if isinstance(model.language, LlamaLanguage):
                return ("model", "language", "tokenizer"), model.language.tokenizer
            return None
        case _:
            assert_never(model)


def _names(
    data: Mapping[str, Source], model: Model, stages: Sequence[Stage], evaluation: Evaluation | None
) -> Iterator[Mistake]:
    used: list[tuple[tuple[str | int, ...], str]] = []
    for index, stage in enumerate(stages):
        used.append((("stages", index, "data"), stage.data))
        if stage.validation is not None:
            used.append((("stages", index, "validation", "data"), stage.validation.data))
    if evaluation is not None:
        used += [(("evaluation", "val"), evaluation.val), (("evaluation", "test"), evaluation.test)]
    if (trained := tokenizer_of(model)) is not None:
        used.append(((*trained[0], "data"), trained[1].data))
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


def _stage(index: int, stage: Stage, model: Model, earlier: Sequence[Stage]) -> Iterator[Mistake]:
    path = ("stages", index)
    names = tuple(other.name for other in earlier)
    if stage.name in names:
        yield Mistake(
            path=(*path, "name"), found=f"'{stage.name}' again", allowed="a name no other stage has"
        )
    if stage.start_from is not None and "/" not in stage.start_from and stage.start_from not in names:
        allowed = f"an earlier stage ({one_of(names)}) or a run directory written with a '/'"
        found = f"'{stage.start_from}'"
        yield Mistake(path=(*path, "start_from"), found=found, allowed=allowed, choices=names)
    for position, name in enumerate(stage.train):
        if name not in model.part_names:
            hint = (
                "; lora needs model.language.lora" if name == "lora" and model.kind != "dual_encoder" else ""
            )
            allowed = f"parts of this {model.kind}: {one_of(model.part_names)}{hint}"
            place = (*path, "train", position)
            yield Mistake(path=place, found=f"'{name}'", allowed=allowed, choices=model.part_names)
        elif name in stage.train[:position]:
            yield Mistake(path=(*path, "train", position), found=f"'{name}' again", allowed="each part once")
    yield from _inner(path, stage, model)
    yield from _recomputed(path, stage, model)
    for name in stage.objective:
        if name not in OBJECTIVES[model.kind]:
            allowed = f"{one_of(OBJECTIVES[model.kind])} (model.kind is {model.kind})"
            yield Mistake(path=(*path, "objective", name), found=f"'{name}'", allowed=allowed)
    compares = {"contrastive", "matching"} & set(stage.objective)
    if compares and stage.micro_batch_size not in (None, stage.batch_size):
        allowed = "null, because each picture must be compared with the whole batch at once"
        place = (*path, "micro_batch_size")
        yield Mistake(path=place, found=str(stage.micro_batch_size), allowed=allowed)
    if stage.captions == "each" and not compares:
        allowed = "one or all; several captions in one row only suit the contrastive objective"
        yield Mistake(path=(*path, "captions"), found="'each'", allowed=allowed)
    if "language" in stage.train and _is_quantized(model):
        allowed = "lora and other parts, because model.language.quantize keeps the language model in 4 bits"
        place = (*path, "train", stage.train.index("language"))
        yield Mistake(path=place, found="'language'", allowed=allowed)
    if stage.template is not None and isinstance(model, DualEncoder | QFormerPretrainer):
        allowed = f"null, because a {model.kind} reads texts without a chat template"
        yield Mistake(path=(*path, "template"), found=f"'{stage.template}'", allowed=allowed)
    rows: list[tuple[tuple[str, ...], str]] = [(("rows",), stage.rows)]
    if stage.validation is not None and stage.validation.rows is not None:
        rows.append((("validation", "rows"), stage.validation.rows))
    for below, word in rows:
        if word not in ROWS[model.kind]:
            allowed = f"{one_of(ROWS[model.kind])} (model.kind is {model.kind})"
            yield Mistake(path=(*path, *below), found=f"'{word}'", allowed=allowed, choices=ROWS[model.kind])


def _tiles(model: VisionLanguageModel, *, stores_features: bool) -> Iterator[Mistake]:
    keeps_grids = ("linear", "mlp", "pixel_shuffle")
    if model.connector is not None and model.connector.kind not in keeps_grids:
        allowed = f"{one_of(keeps_grids)}, which keep the grid of patches, because model.tiles joins tiles row by row"
        path, found = ("model", "connector", "kind"), f"'{model.connector.kind}'"
        yield Mistake(path=path, found=found, allowed=allowed, choices=keeps_grids)
    if model.vision.features != "patches":
        allowed = "patches, because model.tiles joins grids of patches"
        yield Mistake(
            path=("model", "vision", "features"), found=f"'{model.vision.features}'", allowed=allowed
        )
    if stores_features:
        allowed = "null, because pictures that are cut have different numbers of tiles and are encoded live"
        yield Mistake(path=("features",), found="a feature store", allowed=allowed)


def _inner(path: tuple[str | int, ...], stage: Stage, model: Model) -> Iterator[Mistake]:
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
    language = None if isinstance(model, DualEncoder | QFormerPretrainer) else model.language
    return isinstance(language, PretrainedLanguage) and language.quantize is not None


def _recomputed(path: tuple[str | int, ...], stage: Stage, model: Model) -> Iterator[Mistake]:
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
