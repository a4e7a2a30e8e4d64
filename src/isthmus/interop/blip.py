"""BLIP checkpoints read into a model: Hugging Face folders, and the tensors of BLIP's own code.

Its own code saves pickles, which are never read here; the tensors are read from a safetensors file with the same keys.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    PretrainedConfig,
)

from isthmus.core.errors import CheckpointError
from isthmus.interop.blip_names import BERT, DECODER, ENCODER, REST
from isthmus.interop.patterns import Parts, Place, place_of
from isthmus.interop.whole import read_tensors, read_whole
from isthmus.models.med import Med
from isthmus.nn.post_norm import NORM_EPS, PostNormAttention
from isthmus.nn.transformer import Block
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.vision.vit import ViT
from isthmus.training.state import mismatches

_LOG = logging.getLogger(__name__)
_KINDS = {one.__name__: one for one in (BlipForConditionalGeneration, BlipForImageTextRetrieval)}


def load_blip(model: Med, source: PretrainedSource) -> tuple[str, ...]:
    """Fill a model from a Hugging Face folder.

    A captioner has no encoder and no heads, a model for retrieval no decoder and no temperature; these stay.

    Returns:
        Names of the parts that were filled.

    Raises:
        OSError: The folder is not there, or holds no safetensors file.
        CheckpointError: It holds another kind of model, or does not fit; all differences are listed.
    """
    configuration = load_configuration(source)
    names = configuration.architectures or ["nothing"]
    if configuration.model_type != "blip" or names[0] not in _KINDS:
        raise CheckpointError(
            f"{source.name} holds a '{names[0]}' ({configuration.model_type}); expected one of {', '.join(_KINDS)}"
        )
    wrong = [*_disagreements(model, configuration)]
    if wrong:
        raise CheckpointError(
            f"{source.name} computes something else than the model: {'; '.join(wrong)}; write the checkpoint's values "
            "into the recipe"
        )
    return _fill(model, read_whole(source, _KINDS[names[0]]).state_dict(), name=source.name)


def load_blip_file(model: Med, file: Path) -> tuple[str, ...]:
    """Fill the parts whose tensors a file with the keys of BLIP's own code holds.

    Returns:
        Names of the parts that were filled.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the model; all differences are listed.
    """
    tensors = read_tensors(file)
    return _fill(model, tensors, name=str(file))


@torch.no_grad()
def start_med_from_bert(model: Med, source: PretrainedSource) -> None:
    """Put BERT's weights into words, feed-forwards and both self-attentions; cross-attention stays random.

    Li et al., 2022, section 4.1. The tokens that begin captions and matches, which BERT lacks, stay random too.

    Raises:
        OSError: The folder is not there.
        ValueError: The checkpoint lacks weights.
        CheckpointError: It does not fit; all differences are listed.
    """
    state = load_network(BertForMaskedLM, source).state_dict()
    wrong = []
    for name, tensor in state.items():
        place = place_of(name, BERT)
        for part, inside in _everywhere(place):
            held = model.parts()[part].state_dict()
            rows = inside in ("words.weight", "positions.weight", "head_bias")  # tables may differ in length
            if inside not in held or held[inside].shape[rows:] != tensor.shape[rows:]:
                wrong.append(f"{part}.{inside} is {tuple(tensor.shape)} there")
                continue
            shared = min(len(tensor), len(held[inside]))
            held[inside][:shared].copy_(tensor[:shared])
        if place is None:
            wrong.append(f"unknown {name}")
    if wrong:
        raise CheckpointError(
            f"the BERT in {source.name} does not fit the text transformer: {'; '.join(wrong[:12])}; "
            "give one of its sizes"
        )


def _everywhere(place: Place | None) -> tuple[Place, ...]:
    """The places of one tensor of BERT: encoder and decoder begin with the same self-attention."""
    if place is None or not place.part:
        return ()
    return (place, Place("decoder", place.name)) if place.part == "encoder" else (place,)


@torch.no_grad()
def _fill(model: Med, tensors: Mapping[str, Tensor], *, name: str) -> tuple[str, ...]:
    """Put tensors into the parts that they belong to, all or none; what may be left out is said."""
    expected = {part: module.state_dict() for part, module in model.parts().items()}
    parts, wrong = _by_part(tensors)
    left = []
    for part, here in expected.items():
        found = parts.get(part, {})
        lacking = {key for key in here if key not in found} if part == "heads" or not found else set()
        left += sorted(f"{part}.{key}" for key in lacking)
        needed = {key: tensor for key, tensor in here.items() if key not in lacking}
        wrong += [f"{part}: {difference}" for difference in mismatches(found, needed)]
    if wrong or not parts:
        raise CheckpointError(
            f"the weights of {name} do not fit the model: {'; '.join(wrong[:12]) or 'none is a BLIP tensor'}; name a "
            "checkpoint of this architecture, or build the architecture that it says"
        )
    if left:
        _LOG.warning(
            "%s does not hold %d tensors, which stay as they are, first %s", name, len(left), left[0]
        )
    for part, found in parts.items():
        for key, tensor in found.items():
            expected[part][key].copy_(tensor)
    return tuple(part for part in expected if part in parts)


def _by_part(tensors: Mapping[str, Tensor]) -> tuple[Parts, list[str]]:
    """The tensors by part under the names they have here, and what is wrong with them.

    What encoder and decoder share stands in both; both have to say the same.
    """
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    wrong = []
    for name, tensor in tensors.items():
        place = place_of(name, (*ENCODER, *DECODER, *REST))
        if place is None:
            wrong.append(f"unknown {name}")
        elif place.part:
            part, inside = place
            if inside in parts[part] and not torch.equal(parts[part][inside], tensor):
                wrong.append(f"{name} differs between text encoder and decoder, which share it")
            parts[part][inside] = tensor
    vision = parts.get("vision")
    if vision is not None and "cls" in vision and "positions.table" in vision:
        table = vision["positions.table"].flatten(0, -2)
        vision |= {
            "cls": vision["cls"].flatten(),
            "cls_position": table[0],
            "positions.table": table[1:],
        }
    return dict(parts), wrong


def _disagreements(model: Med, configuration: PretrainedConfig) -> Iterator[str]:
    """What changes numbers although no weight has another name or shape."""
    theirs, words = configuration.vision_config, configuration.text_config
    encoder, attention = model.vision, model.encoder.attentions[0]
    if not isinstance(encoder, ViT):
        yield f"the vision encoder is a {type(encoder).__name__}; a BLIP checkpoint needs one of kind vit"
        return
    first = encoder.transformer.blocks[0]
    assert isinstance(first, Block)
    assert isinstance(attention, PostNormAttention)
    found = {
        "vision.features": (encoder.features, "all"),
        "pool": (model.pool, "first"),
        "vision.norm_eps": (first.norm1.eps, theirs.layer_norm_eps),
        "vision.heads": (first.attention.num_heads, theirs.num_attention_heads),
        "text.heads": (attention.num_heads, words.num_attention_heads),
        "the text's norm_eps": (NORM_EPS, words.layer_norm_eps),
    }
    for key, (ours, due) in found.items():
        if ours != due:
            yield f"{key} is {due}, the model has {ours}"
    if theirs.hidden_act != "gelu" or words.hidden_act != "gelu":
        yield f"the activations are {theirs.hidden_act} and {words.hidden_act}, the model has gelu"
