"""The same model with every named checkpoint as it was published: whole, and with no rows of ours."""

from typing import assert_never

from isthmus.config.joining import Splice
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
from isthmus.config.qformer import QFormer, QFormerPretrainer
from isthmus.config.vision import PretrainedVision, Vision, VitVision


def published_form(config: Model) -> Model:
    """What a recipe's model would be if nothing were cut from, or added to, the checkpoints it names.

    Vision encoders are whole again where the recipe reads an earlier layer and read no alpha; an added placeholder has
    no row. Before a Q-Former they stay as they are: the norm behind their last layer is published as the connector's.
    """
    match config:
        case VisionLanguageModel():
            changes: dict[str, object] = {"vision": _whole(config.vision)}
            if isinstance(config.connector, QFormer):
                changes = {}
            if config.placeholder == "add" and config.connector is not None:
                changes["fusion"] = Splice()
            elif config.placeholder == "add" and config.splice is not None:
                name, way = config.splice
                changes["paths"] = config.paths | {name: way.model_copy(update={"fusion": Splice()})}
            return config.model_copy(update=changes)
        case DualEncoder() | Classifier():
            return config.model_copy(update={"vision": _whole(config.vision)})
        case LanguageModel() | MaskedImageModel() | VisualTokenizer() | QFormerPretrainer() | Med():
            return config


def _whole(vision: Vision) -> Vision:
    match vision:
        case PretrainedVision():
            return vision.model_copy(update={"layer": None, "alpha": False})
        case VitVision():
            return vision.model_copy(update={"layer": None, "final_norm": True, "alpha": False})
        case _:
            assert_never(vision)
