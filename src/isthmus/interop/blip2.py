"""BLIP-2 checkpoints read into a model: Hugging Face folders, LAVIS' tensors, and the BERT a Q-Former starts from.

LAVIS saves pickles, which are never read here; its tensors are read from a safetensors file with the same keys. It
leaves out what was frozen, and so may such a file.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    BertForMaskedLM,
    BertModel,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    PretrainedConfig,
)

from isthmus.core.errors import CheckpointError
from isthmus.interop.blip2_names import BERT, HUGGING_FACE, LAVIS, by_part
from isthmus.interop.llava import normalises
from isthmus.interop.patterns import Parts
from isthmus.interop.whole import read_tensors, read_whole
from isthmus.models.qformer_pretrainer import QFormerPretrainer
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.connectors.qformer import QFormer
from isthmus.parts.vision.pretrained import TransformerEncoder
from isthmus.training.state import mismatches

_LOG = logging.getLogger(__name__)
_TEXT = "text."
_NOT_IN_HUGGING_FACE = ("text.head.", "text.head_bias", "temperature")
"""What transformers' model of the first stage lacks: it writes no captions and is not trained."""
_ALIKE = ("hidden_act", "layer_norm_eps", "num_attention_heads", "image_size", "patch_size")
"""What changes the encoder's numbers although no weight has another name or shape."""


def load_blip2(model: VisionLanguageModel | QFormerPretrainer, source: PretrainedSource) -> tuple[str, ...]:
    """Fill a model from a Hugging Face folder.

    A vision-language model takes a `Blip2ForConditionalGeneration`; the model of the first stage a
    `Blip2ForImageTextRetrieval`, which has no head for captions and no temperature: those stay as they are.

    Returns:
        Names of the parts that were filled.

    Raises:
        OSError: The folder is not there, or holds no safetensors file.
        CheckpointError: It holds another kind of model, is incomplete, or does not fit; all differences are listed.
    """
    configuration = load_configuration(source)
    if configuration.model_type != "blip-2":
        raise CheckpointError(f"{source.name} holds a '{configuration.model_type}'; expected a blip-2")
    wrong = [*_disagreements(model, configuration)]
    if wrong:
        raise CheckpointError(
            f"{source.name} computes something else than the model: {'; '.join(wrong)}; write the checkpoint's values "
            "into the recipe"
        )
    whole = isinstance(model, VisionLanguageModel)
    network = read_whole(source, Blip2ForConditionalGeneration if whole else Blip2ForImageTextRetrieval)
    parts, unknown = by_part(network.state_dict(), HUGGING_FACE)
    return _fill(model, parts, unknown, name=source.name, may_lack=_NOT_IN_HUGGING_FACE)


def load_lavis(model: VisionLanguageModel | QFormerPretrainer, file: Path) -> tuple[str, ...]:
    """Fill the parts whose tensors a file with LAVIS' keys holds.

    A vision-language model takes a file of either stage: of the first one, words and heads are left out and the
    projection stays as it is, as LAVIS itself goes on from there.

    Returns:
        Names of the parts that were filled.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the model; all differences are listed.
    """
    tensors = read_tensors(file)
    parts, unknown = by_part(tensors, LAVIS)
    may_lack: tuple[str, ...] = ()
    if isinstance(model, VisionLanguageModel) and "heads" in parts:
        del parts["heads"]
        may_lack = ("projection.",)
        parts["connector"] = {
            key: tensor for key, tensor in parts.get("connector", {}).items() if not key.startswith(_TEXT)
        }
    return _fill(model, parts, unknown, name=str(file), may_lack=may_lack)


@torch.no_grad()
def start_from_bert(connector: QFormer, source: PretrainedSource) -> None:
    """Put BERT's weights into a Q-Former: its feed-forwards into those of queries and of words alike.

    Queries, cross-attention, the norm on patches, a projection and the token that begins a caption stay random (Li et
    al., 2023, section 3.1).

    Raises:
        OSError: The folder is not there.
        ValueError: The checkpoint lacks weights.
        CheckpointError: It does not fit; all differences are listed.
    """
    if connector.text is None:
        network = load_network(BertModel, source, options={"add_pooling_layer": False})
        state = {f"bert.{key}": tensor for key, tensor in network.state_dict().items()}
    else:
        state = load_network(BertForMaskedLM, source).state_dict()
    parts, unknown = by_part(state, BERT)
    found = parts["connector"]
    for key, tensor in list(found.items()):
        if key.startswith("text.ffns."):
            found[f"layers.layers.{key.removeprefix('text.ffns.').replace('.', '.ffn.', 1)}"] = tensor
    expected = connector.state_dict()
    if connector.text is None:
        found = {key: tensor for key, tensor in found.items() if not key.startswith(_TEXT)}
    rows = ("text.words.weight", "text.positions.weight", "text.head_bias")
    wrong = [f"unknown {key}" for key in unknown]
    wrong += mismatches(
        {key: tensor for key, tensor in found.items() if key not in rows},
        {key: tensor for key, tensor in expected.items() if key not in rows and _is_berts(key)},
    )
    for key in rows:
        if key in expected and found[key].shape[1:] != expected[key].shape[1:]:
            wrong.append(f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}")
    if wrong:
        raise CheckpointError(
            f"the BERT in {source.name} does not fit the Q-Former: {'; '.join(wrong)}; give one of its sizes"
        )
    for key, tensor in found.items():
        shared = min(len(tensor), len(expected[key]))  # tables may be longer or shorter, as [DEC] makes them
        expected[key][:shared].copy_(tensor[:shared])


def _is_berts(key: str) -> bool:
    own = ("queries", "patch_norm.", "projection.")
    return not key.startswith(own) and ".cross_attention." not in key


@torch.no_grad()
def _fill(
    model: VisionLanguageModel | QFormerPretrainer,
    parts: Parts,
    unknown: list[str],
    *,
    name: str,
    may_lack: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Put tensors into the parts that they belong to, all or none; what a part may lack is said and left."""
    expected = {part: module.state_dict() for part, module in _modules(model).items()}
    wrong = [f"unknown {key}" for key in unknown]
    wrong += [f"{part}: the model has no such part" for part in parts if part not in expected]
    left: list[str] = []
    for part, tensors in parts.items():
        here: Mapping[str, Tensor] = expected.get(part, {})
        lacking = [key for key in here if key.startswith(may_lack) and key not in tensors] if may_lack else []
        left += [f"{part}.{key}" for key in lacking]
        needed = {key: tensor for key, tensor in here.items() if key not in lacking}
        wrong += [f"{part}: {difference}" for difference in mismatches(tensors, needed)]
    if wrong:
        raise CheckpointError(
            f"the weights of {name} do not fit the model: {'; '.join(wrong)}; "
            "name a checkpoint of this architecture, or build the architecture that it says"
        )
    if left:
        _LOG.warning("%s does not hold %s, which stay as they are", name, ", ".join(left))
    for part, tensors in parts.items():
        for key, tensor in tensors.items():
            expected[part][key].copy_(tensor)
    return tuple(parts)


def _modules(model: VisionLanguageModel | QFormerPretrainer) -> dict[str, nn.Module]:
    """The parts by the names that checkpoints are sorted into."""
    named: dict[str, nn.Module] = {"connector": qformer_of(model)}
    if isinstance(model.vision, TransformerEncoder):
        named["vision"] = model.vision.network
    if isinstance(model, VisionLanguageModel):
        return named | {"language": model.language.network}
    return named | {"heads": model.heads}


def qformer_of(model: VisionLanguageModel | QFormerPretrainer) -> QFormer:
    """The Q-Former of a model.

    Raises:
        CheckpointError: Its connector is another one.
    """
    if not isinstance(model.connector, QFormer):
        raise CheckpointError(
            f"the model's connector is a {type(model.connector).__name__}; a BLIP-2 checkpoint needs a qformer"
        )
    return model.connector


def _disagreements(
    model: VisionLanguageModel | QFormerPretrainer, configuration: PretrainedConfig
) -> Iterator[str]:
    theirs = configuration.vision_config.to_dict()
    shape = qformer_of(model).shape
    if shape.patch_norm_eps != theirs["layer_norm_eps"]:
        yield f"connector.norm_eps is {theirs['layer_norm_eps']}, the model has {shape.patch_norm_eps}"
    heads = configuration.qformer_config.num_attention_heads
    if shape.num_heads != heads:
        yield f"connector.heads is {heads}, the model has {shape.num_heads}"
    encoder = model.vision
    if not isinstance(encoder, TransformerEncoder):
        yield f"the vision encoder is a {type(encoder).__name__}, not a pretrained transformer"
        return
    ours = encoder.network.config.to_dict()
    for key in _ALIKE:
        if ours.get(key) != theirs.get(key):
            yield f"vision.{key} is {theirs.get(key)}, the model has {ours.get(key)}"
    if encoder.features != "all":
        yield f"vision features are 'all', the model has '{encoder.features}'"
    if normalises(encoder):
        yield "the vision encoder's last norm belongs to the connector, the model has final_norm: true"
