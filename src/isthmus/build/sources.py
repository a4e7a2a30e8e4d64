"""Data sources from a recipe."""

from pathlib import Path
from typing import assert_never

from isthmus.config.data import FolderSource, LlavaSource, SceneSource, ShardSource, Source
from isthmus.config.paths import expand
from isthmus.data.samples import Source as SampleSource
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.llava import LlavaConversations
from isthmus.data.sources.scenes import SceneSource as DrawnScenes
from isthmus.data.sources.shards import Shards


def build_source(config: Source) -> SampleSource:
    """Open a source.

    Raises:
        DataError: There is nothing there, or it is not what the recipe says.
    """
    match config:
        case ShardSource():
            return Shards(expand(config.files))
        case FolderSource():
            return Folder(Path(expand(config.path)), table=config.table)
        case LlavaSource():
            return LlavaConversations(Path(expand(config.file)), Path(expand(config.images)))
        case SceneSource():
            return DrawnScenes(
                split=config.split,
                num_samples=config.num_samples,
                image_size=config.image_size,
                aspect=config.aspect,
                seed=config.seed,
                colourless=config.colourless,
                shapeless=config.shapeless,
            )
        case _:
            assert_never(config)
