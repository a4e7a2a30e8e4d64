"""Whether a stage that captions and filters has what it needs: trained models of the right kinds, and pictures."""

from collections.abc import Iterator, Mapping, Sequence

from isthmus.config.base import Mistake, one_of
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.data import FolderSource, SceneSource, ShardSource, Source
from isthmus.config.model import Model
from isthmus.config.stages import Stage, TrainStage

WRITERS = ("med", "qformer_pretrainer", "vision_language_model")
"""Model kinds that write captions."""

FILTERS = {"blip": ("med", "qformer_pretrainer"), "blip2": ("dual_encoder", "med", "qformer_pretrainer")}
"""Model kinds that match, and that compare, by the variant that needs them."""


def made_by(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Names of the sources that stages make."""
    return tuple(stage.makes for stage in stages if isinstance(stage, CapfiltStage))


def mistakes(
    index: int,
    stage: CapfiltStage,
    models: Mapping[str | None, Model],
    earlier: Sequence[Stage],
    data: Mapping[str, Source],
) -> Iterator[Mistake]:
    """What is wrong with a stage of kind `capfilt`."""
    path = ("stages", index)
    trained = {one.name: models[one.model].kind for one in earlier if isinstance(one, TrainStage)}
    yield from _model((*path, "filter"), stage.filter, trained, FILTERS[stage.variant])
    if stage.captioner is not None:
        yield from _model((*path, "captioner"), stage.captioner, trained, WRITERS)
    elif stage.num_captions:
        allowed = f"an earlier stage ({one_of(tuple(trained))}), or captions: 0 to filter alone"
        yield Mistake(path=(*path, "captioner"), found="null", allowed=allowed, choices=tuple(trained))
    source = data.get(stage.data)
    if source is not None and not isinstance(source, ShardSource | FolderSource | SceneSource):
        allowed = "a source of pictures with captions: shards, folder or scenes"
        yield Mistake(path=(*path, "data"), found=f"'{stage.data}' of kind {source.kind}", allowed=allowed)
    if stage.makes in data or stage.makes in made_by(earlier):
        allowed = "a name that no other source has"
        yield Mistake(path=(*path, "makes"), found=f"'{stage.makes}' again", allowed=allowed)


def _model(
    path: tuple[str | int, ...], name: str, trained: Mapping[str, str], kinds: tuple[str, ...]
) -> Iterator[Mistake]:
    if name not in trained:
        allowed = f"an earlier stage that trains: {one_of(tuple(trained))}"
        yield Mistake(path=path, found=f"'{name}'", allowed=allowed, choices=tuple(trained))
    elif trained[name] not in kinds:
        allowed = f"a stage of a model of kind {one_of(kinds)}"
        yield Mistake(path=path, found=f"'{name}', which trains a {trained[name]}", allowed=allowed)
