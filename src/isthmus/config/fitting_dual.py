"""Whether a dual encoder's stages and judging suit it: marked regions, patches that are left out, classes."""

from collections.abc import Iterator

from isthmus.config.base import Mistake
from isthmus.config.evaluation import Evaluation
from isthmus.config.model import DualEncoder, LanguageModel, MaskedImageModel, Model, VisualTokenizer
from isthmus.config.stages import TrainStage

_MATCHING = ("med", "qformer_pretrainer")
"""Kinds of models that look at a picture and a text together."""


def patches_kept(
    path: tuple[str | int, ...], stage: TrainStage, model: Model, *, stores_features: bool
) -> Iterator[Mistake]:
    """What is wrong with a stage that leaves patches out."""
    if stage.patches_kept is None:
        return
    place, found = (*path, "patches_kept"), f"{stage.patches_kept:g}"
    if isinstance(model, MaskedImageModel | VisualTokenizer):
        allowed = "null, because model.masking says which patches are hidden, and a visual tokenizer sees all"
        yield Mistake(path=place, found=found, allowed=allowed)
    elif isinstance(model, LanguageModel) or model.vision.kind != "vit":
        allowed = "null, because only a vision encoder of kind vit can leave patches out"
        yield Mistake(path=place, found=found, allowed=allowed)
    elif stores_features:
        allowed = "null, because stored features are those of all patches; set features: null to encode live"
        yield Mistake(path=place, found=found, allowed=allowed)
    elif int((patches := (model.vision.image_size // model.vision.patch) ** 2) * stage.patches_kept) < 1:
        allowed = f"at least {1 / patches:g}, so that one of {patches} patches is seen"
        yield Mistake(path=place, found=found, allowed=allowed)


def views(path: tuple[str | int, ...], stage: TrainStage, *, stores_features: bool) -> Iterator[Mistake]:
    """What is wrong with a stage that sees pictures in part."""
    if stage.views is not None and stores_features:
        allowed = (
            "null, because stored features are those of whole pictures; set features: null to encode live"
        )
        yield Mistake(path=(*path, "views"), found="views", allowed=allowed)
    elif stage.views is not None and stage.rows == "regions":
        allowed = "null, because the mask of a region belongs to the whole picture"
        yield Mistake(path=(*path, "views"), found="views", allowed=allowed)


def regions(path: tuple[str | int, ...], stage: TrainStage, model: Model) -> Iterator[Mistake]:
    """What is wrong with a stage whose rows are regions, or with its share of whole pictures."""
    if stage.rows == "regions" and isinstance(model, DualEncoder):
        if not model.marks_regions:
            allowed = "captions, because model.vision.alpha is false and the encoder sees no mask"
            yield Mistake(path=(*path, "rows"), found="'regions'", allowed=allowed)
        if stage.captions != "one":
            allowed = "one, because each row holds one region"
            yield Mistake(path=(*path, "captions"), found=f"'{stage.captions}'", allowed=allowed)
    elif stage.whole:
        allowed = "0.0, because only a stage with rows: regions also reads whole pictures"
        yield Mistake(path=(*path, "whole"), found=f"{stage.whole:g}", allowed=allowed)


def members(path: tuple[str | int, ...], stage: TrainStage, model: Model) -> Iterator[Mistake]:
    """What is wrong with what an ensemble learns by."""
    if isinstance(model, DualEncoder) and model.members > 1 and "sigmoid" in stage.objective:
        allowed = (
            "contrastive, because model.members is above 1 and only it compares each member's vectors alone"
        )
        yield Mistake(path=(*path, "objective"), found="'sigmoid'", allowed=allowed)


def judged(model: Model, evaluation: Evaluation) -> Iterator[Mistake]:
    """What is wrong with how classes or regions are judged."""
    if evaluation.task == "regions" and isinstance(model, DualEncoder) and not model.marks_regions:
        allowed = (
            "retrieval, zero_shot or probe, because model.vision.alpha is false and the encoder sees no mask"
        )
        yield Mistake(path=("evaluation", "task"), found="'regions'", allowed=allowed)
    if evaluation.rerank is not None and (evaluation.task != "retrieval" or model.kind not in _MATCHING):
        allowed = (
            f"null, because only retrieval by a model that matches ({' or '.join(_MATCHING)}) has two steps"
        )
        yield Mistake(path=("evaluation", "rerank"), found=str(evaluation.rerank), allowed=allowed)
    if (evaluation.task == "probe") != (evaluation.train is not None):
        found = "nothing" if evaluation.train is None else f"'{evaluation.train}'"
        allowed = "the source that a probe learns from, and null for other tasks"
        yield Mistake(path=("evaluation", "train"), found=found, allowed=allowed)
    for at, prompt in enumerate(evaluation.prompts):
        if prompt.count("{}") != 1:
            allowed = "a sentence with {} once, in the place of the class"
            yield Mistake(path=("evaluation", "prompts", at), found=f"'{prompt}'", allowed=allowed)
