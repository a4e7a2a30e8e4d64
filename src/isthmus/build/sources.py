"""Data sources from a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from isthmus.build.academic import build_academic
from isthmus.config.academic import (
    AOkvqaSource,
    GqaSource,
    OcrVqaSource,
    RefCocoSource,
    TextCapsSource,
    VisualGenomeSource,
    VqaSource,
)
from isthmus.config.data import (
    ClipSource,
    FolderSource,
    LlavaSource,
    MixtureSource,
    SceneSource,
    ShardSource,
    Source,
)
from isthmus.config.paths import data_path
from isthmus.data.exchanged import ExchangedCaptions
from isthmus.data.mixture import Mixture, MixturePart
from isthmus.data.samples import Source as SampleSource
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.llava import LlavaConversations
from isthmus.data.sources.scene_clips import SceneClips
from isthmus.data.sources.scenes import SceneSource as DrawnScenes
from isthmus.data.sources.scenes import Variation
from isthmus.data.sources.shards import Shards
from isthmus.data.sources.single_scenes import SingleScenes


def build_source(config: Source, data: Mapping[str, Source]) -> SampleSource:
    """Open a source; `data` holds the recipe's other sources, which a mixture names.

    Raises:
        DataError: There is nothing there, or it is not what the recipe says.
    """
    match config:
        case ShardSource():
            shards = Shards(data_path(config.files))
            if not config.exchanged:
                return shards
            return ExchangedCaptions(shards, share=config.exchanged, seed=config.seed)
        case FolderSource():
            return Folder(Path(data_path(config.path)), table=config.table)
        case LlavaSource():
            return LlavaConversations(Path(data_path(config.file)), Path(data_path(config.images)))
        case SceneSource():
            return _scenes(config)
        case ClipSource():
            return SceneClips(
                split=config.split,
                num_samples=config.num_samples,
                frames=config.frames,
                image_size=config.image_size,
                seed=config.seed,
            )
        case MixtureSource():
            parts = {
                name: MixturePart(
                    source=build_source(data[name], data),
                    weight=part.weight,
                    cap=part.cap,
                    rows=part.rows,
                    prompt=part.prompt,
                )
                for name, part in config.parts.items()
            }
            return Mixture(parts, seed=config.seed)
        case (
            VqaSource()
            | GqaSource()
            | AOkvqaSource()
            | OcrVqaSource()
            | TextCapsSource()
            | RefCocoSource()
            | VisualGenomeSource()
        ):
            return build_academic(config)
        case _:
            assert_never(config)


def _scenes(config: SceneSource) -> SampleSource:
    """Scenes of one thing each where the recipe asks for them, else of one to four."""
    if config.single is not None:
        return SingleScenes(
            split=config.split,
            num_samples=config.num_samples,
            image_size=config.image_size,
            aspect=config.aspect,
            seed=config.seed,
            label=config.single,
        )
    return DrawnScenes(
        split=config.split,
        num_samples=config.num_samples,
        image_size=config.image_size,
        aspect=config.aspect,
        seed=config.seed,
        variation=Variation(
            colourless=config.colourless,
            shapeless=config.shapeless,
            exchanged=config.exchanged,
            counting=config.counting,
        ),
    )
