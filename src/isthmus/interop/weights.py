"""The weights of a vision-language model by part, in the names that Hugging Face gives them inside each part."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from isthmus.core.errors import CheckpointError
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.connectors.linear import LinearConnector
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.vision.pretrained import TransformerEncoder
from isthmus.training.state import mismatches

Part = Mapping[str, Tensor]
PARTS = ("vision", "connector", "newline", "language")


@dataclass(frozen=True, kw_only=True)
class JointWeights:
    """What a checkpoint holds; a part that it does not hold is None.

    Attributes:
        vision: As in the vision network's own state.
        connector: `linear_1` and `linear_2`, or `linear` alone, each with `weight` and `bias`.
        newline: `vector`.
        language: `decoder` without its output head, and `head`.
    """

    vision: Part | None = None
    connector: Part | None = None
    newline: Part | None = None
    language: Part | None = None

    def parts(self) -> dict[str, Part]:
        """The parts that are there."""
        named = {
            "vision": self.vision,
            "connector": self.connector,
            "newline": self.newline,
            "language": self.language,
        }
        return {part: tensors for part, tensors in named.items() if tensors is not None}


def weights_of(model: VisionLanguageModel, parts: Collection[str] = PARTS) -> JointWeights:
    """The tensors of a model themselves, not copies.

    Args:
        model: The model.
        parts: The parts that are wanted; others are None.

    Raises:
        CheckpointError: Wanted parts are such that no layout of other projects holds them; all are listed.
    """
    wrong = [reason for part, reason in _foreign(model) if part in parts]
    if wrong:
        raise CheckpointError(
            f"this model has no place in the LLaVA layouts: {'; '.join(wrong)}; "
            "only pretrained vision transformers, linear or plain MLP connectors and language models fit"
        )
    return JointWeights(
        vision=network_of(model).state_dict() if "vision" in parts else None,
        connector=_connector(model) if "connector" in parts else None,
        newline=dict(model.newline.state_dict()) if model.newline and "newline" in parts else None,
        language=_language(model.language.network) if "language" in parts else None,
    )


@torch.no_grad()
def fill(model: VisionLanguageModel, found: JointWeights, *, name: str) -> tuple[str, ...]:
    """Put a checkpoint's weights into the parts that it holds; returns their names.

    A vision encoder that is built up to an earlier layer takes no weights of later ones.

    Args:
        model: What is filled.
        found: The checkpoint's weights.
        name: What messages call the checkpoint.

    Raises:
        CheckpointError: Names or shapes differ in any part; every difference is listed and nothing is changed.
    """
    given = found.parts()
    expected = weights_of(model, given).parts()
    wrong = [f"{part}: the model has no such part" for part in given if part not in expected]
    shared = {part: tensors for part, tensors in given.items() if part in expected}
    if "vision" in shared:
        shared["vision"] = _built(shared["vision"], expected["vision"])
    for part, tensors in shared.items():
        wrong += [f"{part}: {difference}" for difference in mismatches(tensors, expected[part])]
    if "language" in given and model.newline is not None and "newline" not in given:
        wrong.append("newline: missing, as the checkpoint is of a model without tiles")
    if "language" in shared and not _fits_tie(shared["language"], expected["language"]):
        wrong.append(
            "language: its output head is a matrix of its own, the model's is its table of embeddings"
        )
    if wrong:
        raise CheckpointError(
            f"the weights of {name} do not fit the model: {'; '.join(wrong)}; "
            "name a checkpoint of this architecture, or build the architecture that it says"
        )
    for part, tensors in shared.items():
        for key, tensor in tensors.items():
            expected[part][key].copy_(tensor)
    return tuple(shared)


def prefixed(prefix: str, state: Part) -> dict[str, Tensor]:
    """The same tensors, each name with a prefix."""
    return {f"{prefix}.{key}": tensor for key, tensor in state.items()}


def encoder_of(model: VisionLanguageModel) -> TransformerEncoder:
    """The vision encoder of a model that `weights_of` accepts."""
    assert isinstance(model.vision, TransformerEncoder)
    return model.vision


def network_of(model: VisionLanguageModel) -> PreTrainedModel:
    """The vision network as Hugging Face knows it."""
    return cast(PreTrainedModel, encoder_of(model).network)


def _foreign(model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
    """Parts that have no place in other layouts, and why."""
    if not isinstance(model.vision, TransformerEncoder):
        yield "vision", f"the vision encoder is a {type(model.vision).__name__}"
    if model.fusion is not None:
        yield "language", "gated blocks between the language model's layers read the pictures"
    connector = model.connector
    if connector is None:
        yield "connector", "no visual tokens are spliced"
    elif isinstance(connector, MLPConnector):
        if connector.state_dict().keys() != {
            "layers.0.weight",
            "layers.0.bias",
            "layers.2.weight",
            "layers.2.bias",
        }:
            yield (
                "connector",
                "the connector is an MLP with other than two layers, or with a norm or positions",
            )
        elif connector.pool_side is not None:
            yield "connector", "the connector averages patches"
    elif not isinstance(connector, LinearConnector):
        yield "connector", f"the connector is a {type(connector).__name__}"


def _connector(model: VisionLanguageModel) -> Part:
    names = {"map": "linear", "layers.0": "linear_1", "layers.2": "linear_2"}
    assert model.connector is not None
    state = model.connector.state_dict()
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": state[key] for key in state}


def _language(network: PreTrainedModel) -> Part:
    """Decoder and head under names that no family has of its own; low-rank updates beside them are left out."""
    head = next(name for name, module in network.named_modules() if module is network.get_output_embeddings())
    own = {
        key.replace(".base_layer.", "."): tensor
        for key, tensor in network.state_dict().items()
        if ".lora_" not in key
    }
    renamed = {}
    for key, tensor in own.items():
        if key.startswith(f"{head}."):
            renamed[f"head.{key.removeprefix(f'{head}.')}"] = tensor
        else:
            renamed[f"decoder.{key.removeprefix(f'{network.base_model_prefix}.')}"] = tensor
    return renamed


def _fits_tie(found: Part, expected: Part) -> bool:
    """Whether what is one tensor in the model is one in the checkpoint too; else the head would overwrite the table."""
    head = expected["head.weight"]
    tied = [key for key, tensor in expected.items() if tensor.data_ptr() == head.data_ptr()]
    given = [found[key] for key in tied if key in found]
    return all(given[0].shape == one.shape and torch.equal(given[0], one) for one in given[1:])


def _built(found: Part, expected: Part) -> Part:
    """Without the layers after the last one that is built, and without what comes after them all."""
    last = max(_layers(expected), default=-1)
    left_out = {key for key in found.keys() - expected.keys() if _after(key, last, expected)}
    return {key: tensor for key, tensor in found.items() if key not in left_out}


def _after(key: str, last: int, expected: Part) -> bool:
    layers = list(_layers([key]))
    truncated = not any(_is_head(name) for name in expected)
    return truncated and (layers[0] > last if layers else _is_head(key))


def _is_head(key: str) -> bool:
    return key.startswith(("post_layernorm.", "head."))


def _layers(keys: Iterable[str]) -> Iterator[int]:
    for key in keys:
        pieces = key.split(".")
        if "layers" in pieces:
            yield int(pieces[pieces.index("layers") + 1])
