"""A whole vision-language model, or its Q-Former's layers, from a checkpoint of another project."""

from pathlib import Path

from isthmus.build.checkpoints import Origin, reading, source_of
from isthmus.build.names import locate
from isthmus.build.qformer import fill_blip2, fill_from_bert
from isthmus.config.model import VisionLanguageModel
from isthmus.config.qformer import QFormer
from isthmus.core.sizes import Size
from isthmus.interop.llava import load_connector, load_llava
from isthmus.interop.open_flamingo import load_open_flamingo
from isthmus.models.vision_language_model import VisionLanguageModel as VisionLanguageModelModule
from isthmus.parts.connectors.qformer import QFormer as QFormerModule

_PATH = "model.weights"


def origin_of_parts(config: VisionLanguageModel, origin: Origin) -> Origin:
    """Where the parts get their first weights: nowhere, if one checkpoint fills them all afterwards."""
    if config.weights is None or _is_file(config.weights):
        return origin
    return Origin(random=True, network_allowed=origin.network_allowed)


def fill_model(config: VisionLanguageModel, model: VisionLanguageModelModule, origin: Origin) -> None:
    """Put the weights of `model.weights` into a model that is built; nothing where there are none or they are random.

    Raises:
        RecipeError: The path does not exist.
        MachineError: The checkpoint is not on this machine.
        CheckpointError: It does not fit the model; all differences are listed.
    """
    if isinstance(config.connector, QFormer):
        assert isinstance(model.connector, QFormerModule)
        fill_from_bert(config.connector, model.connector, origin)
        fill_blip2(config.weights, model, origin)
        return
    if config.weights is None or origin.random:
        return
    if _is_file(config.weights):
        file = Path(locate(config.weights, path=_PATH))
        if config.attention is not None:
            load_open_flamingo(model, file)
        else:
            load_connector(model, file)
        return
    grids = () if config.tiles is None else tuple(Size(*grid) for grid in config.tiles.grids)
    with reading(config.weights, _PATH, origin):
        load_llava(model, source_of(config.weights, None, origin, path=_PATH), grids=grids)


def _is_file(name: str) -> bool:
    return name.endswith(".safetensors")
