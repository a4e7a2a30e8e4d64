"""Whether a recipe's models, the stages that train them and what one takes over from another go together by name."""

from collections.abc import Iterator, Mapping, Sequence

from isthmus.config.base import Mistake, one_of
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.masked import DallECodes, MaskedImageModel, VisualTokenizer
from isthmus.config.model import Model
from isthmus.config.stages import Stage, TrainStage

_TAKEN = ("final", "tokenizer")
"""Folders of a run that are no stage's."""


def mistakes_in_names(
    *, model: Model | None, models: Mapping[str, Model], final: str | None, stages: Sequence[Stage]
) -> list[Mistake]:
    """What must be right before anything else can be said about a recipe, each with its path from the top."""
    if (model is None) == (not models):
        found = "neither model nor models" if model is None else "both model and models"
        return [Mistake(path=("model",), found=found, allowed="exactly one of model and models")]
    names = tuple(models)
    mistakes = [*_wrong_names(names, stages)]
    if final is not None and final not in names:
        allowed = (
            f"a name under models: {one_of(names)}" if models else "null, because this recipe has one model"
        )
        mistakes.append(Mistake(path=("final",), found=f"'{final}'", allowed=allowed, choices=names))
    if mistakes:
        return mistakes
    named: dict[str | None, Model] = {None: model} if model is not None else {**models}
    return [*_taken_over(named, stages)]


def _wrong_names(names: tuple[str, ...], stages: Sequence[Stage]) -> Iterator[Mistake]:
    for index, stage in enumerate(stages):
        if stage.name in _TAKEN:
            allowed = f"another name, because a run keeps other things in the folders {one_of(_TAKEN)}"
            yield Mistake(path=("stages", index, "name"), found=f"'{stage.name}'", allowed=allowed)
        path = ("stages", index, "model")
        if isinstance(stage, CapfiltStage):
            continue
        if not names and stage.model is not None:
            allowed = "null, because this recipe has one model"
            yield Mistake(path=path, found=f"'{stage.model}'", allowed=allowed)
        elif names and stage.model not in names:
            found = "null" if stage.model is None else f"'{stage.model}'"
            yield Mistake(
                path=path, found=found, allowed=f"a name under models: {one_of(names)}", choices=names
            )
    trained = {stage.model for stage in stages}
    for name in names:
        if name not in trained:
            found, allowed = f"'{name}', which no stage trains", "models that a stage trains"
            yield Mistake(path=("models", name), found=found, allowed=allowed)


def _taken_over(models: Mapping[str | None, Model], stages: Sequence[Stage]) -> Iterator[Mistake]:
    """Parts that a stage would take over from another model which its own lacks, and lists without a use."""
    learnt: dict[str, set[str]] = {}
    latest: dict[str | None, str] = {}
    for index, stage in enumerate(stages):
        if not isinstance(stage, TrainStage):
            continue
        start = stage.start_from if stage.start_from is not None else latest.get(stage.model)
        carried = learnt.get(start, set()) - set(stage.drop) if start is not None else set()
        known = models[stage.model].part_names
        for part in sorted(carried - set(known)):
            yield Mistake(
                path=("stages", index, "start_from"),
                found=f"'{start}', which hands on the part {part}",
                allowed=f"parts of this model ({one_of(known)}); list {part} under drop if it is not needed",
            )
        for key, listed in (("drop", stage.drop), ("fresh", stage.fresh)):
            if listed and start is None:
                allowed = "nothing, because this stage starts from no other"
                yield Mistake(path=("stages", index, key), found=f"'{listed[0]}'", allowed=allowed)
        earlier = [one for one in stages[:index] if isinstance(one, TrainStage)]
        yield from _codes(index, stage, models, carried, earlier)
        learnt[stage.name] = (carried | set(stage.train)) & set(known)
        latest[stage.model] = stage.name


def _codes(
    index: int,
    stage: TrainStage,
    models: Mapping[str | None, Model],
    carried: set[str],
    earlier: Sequence[TrainStage],
) -> Iterator[Mistake]:
    """What is wrong with where a masked image model's codes come from."""
    model, path = models[stage.model], ("stages", index)
    if not isinstance(model, MaskedImageModel) or model.tokenizer is None:
        return
    if "tokenizer" in stage.train:
        allowed = (
            "vision and predictor, because codes give a tokenizer no gradient; train it as a visual_tokenizer"
        )
        yield Mistake(path=(*path, "train"), found="'tokenizer'", allowed=allowed)
    is_other_run = stage.start_from is not None and "/" in stage.start_from
    is_published = isinstance(model.tokenizer, DallECodes) and model.tokenizer.weights is not None
    if "tokenizer" not in carried and not is_other_run and not is_published:
        allowed = (
            "a stage or run that hands on a trained tokenizer, else the codes are those of random weights"
        )
        found = "null" if stage.start_from is None else f"'{stage.start_from}'"
        yield Mistake(path=(*path, "start_from"), found=found, allowed=allowed)
    giver = next((one for one in earlier if one.name == stage.start_from), None)
    source = models[giver.model] if giver is not None else None
    if isinstance(source, VisualTokenizer):
        for key in ("image_size", "mean", "std", "resize"):
            here, there = getattr(model.vision, key), getattr(source, key)
            if here != there:
                allowed = (
                    f"a tokenizer that learnt with the vision encoder's {key} ({there} there, {here} here)"
                )
                yield Mistake(path=(*path, "start_from"), found=f"'{stage.start_from}'", allowed=allowed)
