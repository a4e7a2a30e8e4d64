"""Whether a recipe's clips come to a model that takes frames."""

from collections.abc import Iterator, Mapping

from isthmus.config.base import Mistake
from isthmus.config.data import ClipSource, MixtureSource, Source
from isthmus.config.evaluation import Evaluation
from isthmus.config.model import Model, VisionLanguageModel
from isthmus.config.stages import TrainStage


def shown(index: int, stage: TrainStage, model: Model, data: Mapping[str, Source]) -> Iterator[Mistake]:
    """Clips that a stage shows to a model without places for their frames."""
    place = ("stages", index)
    yield from _too_long((*place, "data"), stage.data, model, data)
    if stage.validation is not None:
        yield from _too_long((*place, "validation", "data"), stage.validation.data, model, data)


def judged(model: Model, evaluation: Evaluation, data: Mapping[str, Source]) -> Iterator[Mistake]:
    """Clips that a model without places for their frames is judged by."""
    for word, name in (("val", evaluation.val), ("test", evaluation.test)):
        yield from _too_long(("evaluation", word), name, model, data)


def stored(data: Mapping[str, Source]) -> Iterator[Mistake]:
    """Clips in a recipe that stores features."""
    if any(isinstance(source, ClipSource) for source in data.values()):
        allowed = "null, because the frames of clips are encoded live"
        yield Mistake(path=("features",), found="a feature store", allowed=allowed)


def _too_long(
    path: tuple[str | int, ...], name: str, model: Model, data: Mapping[str, Source]
) -> Iterator[Mistake]:
    most = model.max_frames if isinstance(model, VisionLanguageModel) else 0
    source = data.get(name)
    names = tuple(source.parts) if isinstance(source, MixtureSource) else (name,)
    for one in names:
        clips = data.get(one)
        if isinstance(clips, ClipSource) and most is not None and clips.frames > most:
            takes = f"clips of at most {most} frames" if most else "no clips"
            allowed = (
                f"a source that the model takes ({takes}: every connector has to be a perceiver_resampler, whose "
                "frames are the most that a clip may have, or a spliced mapping_mlp or frame_transformer)"
            )
            yield Mistake(path=path, found=f"'{one}' with clips of {clips.frames} frames", allowed=allowed)
