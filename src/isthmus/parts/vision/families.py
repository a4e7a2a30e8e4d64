"""How transformers writes each family of vision transformers, and how one is built only as far as it is used."""

import copy
from dataclasses import dataclass
from typing import Literal, cast

from torch import nn
from transformers import (
    AutoModel,
    Blip2VisionModel,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
)

from isthmus.parts.checkpoints import PretrainedSource, load_network
from isthmus.parts.vision.encoder import Features, check_final_norm, depth_of

Reading = Literal["last", "normalised", "before_norm"]
"""Which hidden states leave a network: its last as it gives them, those with its last normalisation applied here, or
those before the normalisation that it applies itself."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Vision transformers that share one module in transformers.

    Attributes:
        norm: Name of the last normalisation.
        norms_tokens: Whether the network's last hidden states went through it (CLIP normalises only its pooled vector).
        num_prefix: Tokens in front of the patches, registers not counted.
        optional_pooling: Whether the pooling layer is a choice of the constructor; many checkpoints come without it.
    """

    norm: str
    norms_tokens: bool
    num_prefix: int
    optional_pooling: bool = False


FAMILIES = {
    "clip_vision_model": Family(norm="post_layernorm", norms_tokens=False, num_prefix=1),
    "siglip_vision_model": Family(norm="post_layernorm", norms_tokens=True, num_prefix=0),
    "vit": Family(norm="layernorm", norms_tokens=True, num_prefix=1, optional_pooling=True),
    "dinov2": Family(norm="layernorm", norms_tokens=True, num_prefix=1),
    "dinov2_with_registers": Family(norm="layernorm", norms_tokens=True, num_prefix=1),
    "beit": Family(norm="layernorm", norms_tokens=True, num_prefix=1, optional_pooling=True),
    "blip_2_vision_model": Family(norm="post_layernorm", norms_tokens=True, num_prefix=1),
}
"""By the `model_type` of the vision configuration."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of an encoder is used.

    Attributes:
        features: Which tokens leave.
        layer: Whose output, counted as Hugging Face's `hidden_states`: 0 is what enters the first layer, k what leaves
            layer k, -1 what leaves the last layer. None reads the last layer and builds the network whole.
        final_norm: Whether the network's last normalisation is applied. It was trained for the last layer only.
    """

    features: Features = "patches"
    layer: int | None = None
    final_norm: bool = True


@dataclass(frozen=True, kw_only=True)
class BuiltTransformer:
    """A network that ends where it is read, how it is read, and its number of tokens in front of the patches."""

    network: PreTrainedModel
    reading: Reading
    num_prefix: int


def build_transformer(config: PretrainedConfig, source: PretrainedSource, choice: Choice) -> BuiltTransformer:
    """A vision transformer with the layers that are needed and no others.

    With a layer chosen, later layers, pooling heads and, unless it is asked for, the last normalisation are not built
    and their weights not read; what remains gives the numbers of `hidden_states[layer]`. Without, it is the published
    network. The optional pooling layers of ViT and BEiT exist only for pooled features.

    Args:
        config: The vision configuration.
        source: Where weights come from.
        choice: What of it is used.

    Raises:
        ValueError: The layer does not exist, or the network cannot give what is chosen.
        OSError: The checkpoint is not there.
    """
    family = FAMILIES[config.model_type]
    config = copy.deepcopy(config)
    num_layers = int(config.num_hidden_layers)
    depth = None if choice.layer is None else depth_of(choice.layer, num_layers=num_layers)
    num_prefix = family.num_prefix + int(config.to_dict().get("num_register_tokens", 0))
    _check(choice, config.model_type, num_prefix, depth=depth, num_layers=num_layers)
    if depth is not None:
        config.num_hidden_layers = depth
        if config.model_type == "siglip_vision_model":
            config.vision_use_head = False
        if config.model_type == "beit":
            # Its layers are dropped in training at rates that rise to the last; layers keep theirs.
            config.drop_path_rate *= max(depth - 1, 0) / max(num_layers - 1, 1)
    if choice.features == "projected":
        network = load_network(CLIPVisionModelWithProjection, source, config=config)
        return BuiltTransformer(network=network, reading="last", num_prefix=num_prefix)
    options = {"add_pooling_layer": choice.features == "pooled"} if family.optional_pooling else {}
    if config.model_type == "blip_2_vision_model":
        # transformers has no automatic choice for it, and its checkpoints hold a whole BLIP-2.
        network = load_network(Blip2VisionModel, source, config=config, renamed={r"^vision_model\.": ""})
    else:
        network = load_network(AutoModel, source, config=config, options=options)
    if depth is not None and not choice.final_norm:
        setattr(network, family.norm, nn.Identity())
        reading: Reading = "last"
    elif choice.final_norm:
        reading = "last" if family.norms_tokens else "normalised"
    else:
        reading = "before_norm" if family.norms_tokens else "last"
    return BuiltTransformer(network=network, reading=reading, num_prefix=num_prefix)


def last_norm(network: PreTrainedModel) -> nn.Module:
    """A network's last normalisation."""
    return network.get_submodule(FAMILIES[cast(str, network.config.model_type)].norm)


def _check(choice: Choice, model_type: str, num_prefix: int, *, depth: int | None, num_layers: int) -> None:
    if choice.features == "cls" and num_prefix == 0:
        raise ValueError(
            "features 'cls' is asked for, but this encoder has no CLS token; use patches or pooled"
        )
    if choice.features == "projected" and model_type != "clip_vision_model":
        raise ValueError(
            f"features 'projected' is asked for, but only CLIP encoders have a projection, and this is '{model_type}'; "
            "use pooled"
        )
    if choice.features in ("pooled", "projected"):
        if depth is not None:
            raise ValueError(
                f"features '{choice.features}' come from the head behind the last layer, but layer {choice.layer} is "
                "asked for; use layer: null, or patches, all or cls"
            )
        if not choice.final_norm:
            raise ValueError(
                f"features '{choice.features}' are always normalised; set final_norm: true, or use patches, all or cls"
            )
    if choice.layer is not None and choice.final_norm:
        check_final_norm(choice.layer, num_layers=num_layers)
