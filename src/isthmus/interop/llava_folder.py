"""Writing a model as a Hugging Face folder of LLaVA, LLaVA-1.5 or LLaVA-NeXT."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from isthmus.core.errors import CheckpointError
from isthmus.core.sizes import Size
from isthmus.interop.llava import STRATEGIES, normalises
from isthmus.interop.weights import JointWeights, Part, encoder_of, network_of, prefixed, weights_of
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import quiet
from isthmus.parts.four_bits import in_four_bits

_STRATEGY = {features: word for word, features in STRATEGIES.items()}


@dataclass(frozen=True, kw_only=True)
class LlavaLayout:
    """What a Hugging Face LLaVA folder says besides weights.

    Attributes:
        image_token_id: The id that its tokenizer gives `<image>`; rows are added up to it.
        grids: Rows and columns of tiles; empty where pictures are not cut.
    """

    image_token_id: int
    grids: tuple[Size, ...] = ()


def save_llava(model: VisionLanguageModel, folder: Path, layout: LlavaLayout) -> None:
    """Write a folder that `LlavaForConditionalGeneration` or `LlavaNextForConditionalGeneration` loads.

    A language model whose table ends below `image_token_id` gets rows up to it, each the mean of all rows: its logit
    is then the mean of all logits and never the largest. A vision encoder that is built up to an earlier layer is
    written as a network that ends there.

    Args:
        model: What is written; low-rank updates have to be merged before.
        folder: Where it goes.
        layout: What it says besides weights.

    Raises:
        CheckpointError: The model has no place in this layout.
    """
    weights = weights_of(model)
    wrong = list(_unwritable(model, weights, layout))
    if wrong:
        raise CheckpointError(f"the model cannot be written as a Hugging Face LLaVA: {'; '.join(wrong)}")
    assert weights.vision is not None
    assert weights.connector is not None
    assert weights.language is not None
    language = _with_rows(model, weights.language, layout.image_token_id + 1)
    state = prefixed("model.vision_tower", _closed(model, weights.vision))
    state |= prefixed("model.multi_modal_projector", weights.connector)
    state |= {_name_in_llava(key): tensor for key, tensor in language.items()}
    if weights.newline is not None:
        state["model.image_newline"] = weights.newline["vector"]
    with torch.device("meta"):
        network = _empty_network(model, layout, rows=language["head.weight"].shape[0])
    network.load_state_dict(state, strict=True, assign=True)
    network.tie_weights()
    with quiet():
        network.save_pretrained(folder)


def _unwritable(model: VisionLanguageModel, weights: JointWeights, layout: LlavaLayout) -> Iterator[str]:
    if weights.connector is not None and "linear.weight" in weights.connector:
        yield "a connector of one linear layer has no place there; save it with LLaVA's original keys"
    if any(".lora_" in name for name, _ in model.language.network.named_parameters()):
        yield "low-rank updates are not merged into the language model (`merge_lora`)"
    if in_four_bits(model.language.network):
        yield "the language model's matrices are held in 4 bits"
    encoder = encoder_of(model)
    if encoder.network.config.model_type != "clip_vision_model":
        yield f"the vision encoder is a '{encoder.network.config.model_type}', not a CLIP"
    if normalises(encoder):
        yield "vision features are normalised (final_norm: true)"
    if encoder.features not in _STRATEGY:
        yield f"features '{encoder.features}' have no place there"
    if (model.newline is not None) != bool(layout.grids):
        yield "the model has a newline exactly where pictures are cut into grids"
    if "head.bias" in (weights.language or {}):
        yield "the language model's output head has a bias"


def _closed(model: VisionLanguageModel, vision: Part) -> Part:
    """With a last normalisation, which transformers builds always and applies to the pooled vector alone."""
    ones = torch.ones(int(network_of(model).config.hidden_size))
    return {"post_layernorm.weight": ones, "post_layernorm.bias": torch.zeros_like(ones)} | dict(vision)


def _with_rows(model: VisionLanguageModel, language: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    table = cast(nn.Embedding, model.language.network.get_input_embeddings()).weight
    names = [key for key, tensor in language.items() if tensor.data_ptr() == table.data_ptr()] + [
        "head.weight"
    ]
    filled = dict(language)
    for key in dict.fromkeys(names):
        tensor = language[key]
        added = max(rows - tensor.shape[0], 0)
        mean = tensor.mean(dim=0, keepdim=True).expand(added, -1)
        filled[key] = torch.cat([tensor, mean]) if added else tensor
    return filled


def _empty_network(model: VisionLanguageModel, layout: LlavaLayout, *, rows: int) -> PreTrainedModel:
    vision, text = network_of(model).config.to_dict(), model.language.network.config.to_dict()
    common: dict[str, Any] = {
        "vision_config": vision,
        "text_config": text | {"vocab_size": rows},
        "image_token_index": layout.image_token_id,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": _STRATEGY[encoder_of(model).features],
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": bool(text["tie_word_embeddings"]),
        "image_seq_length": model.num_places(model.vision.num_tokens(model.vision.image_size)),
    }
    if not layout.grids:
        return LlavaForConditionalGeneration(LlavaConfig(**common))
    tile = model.vision.image_size
    pinpoints = [[grid.height * tile.height, grid.width * tile.width] for grid in layout.grids]
    return LlavaNextForConditionalGeneration(LlavaNextConfig(**common, image_grid_pinpoints=pinpoints))


def _name_in_llava(key: str) -> str:
    part, _, rest = key.partition(".")
    return f"lm_head.{rest}" if part == "head" else f"model.language_model.{rest}"
