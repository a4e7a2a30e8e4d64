"""LLaVA, LLaVA-1.5 and LLaVA-NeXT: Hugging Face folders and the original connector files, read into a model.

Folders go through transformers' own loading, which knows every form that their keys had (`language_model.…` on the
hub, `model.language_model.…` inside transformers 5); nothing is renamed by hand but LLaVA's original `mm_projector`
keys, which transformers never had.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    PretrainedConfig,
)

from isthmus.core.errors import CheckpointError
from isthmus.core.sizes import Size
from isthmus.interop.weights import JointWeights, encoder_of, fill, network_of, prefixed
from isthmus.interop.whole import read_tensors, read_whole
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import PretrainedSource, load_configuration
from isthmus.parts.vision.families import FAMILIES, last_norm
from isthmus.parts.vision.pretrained import TransformerEncoder

_NETWORKS = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}
STRATEGIES = {"default": "patches", "full": "all"}
"""Which tokens the words of a LLaVA configuration mean."""
_ALIKE = {
    "vision": ("hidden_act", "layer_norm_eps", "num_attention_heads", "image_size", "patch_size"),
    "language": (
        "model_type",
        *("hidden_act", "hidden_activation", "activation_function"),
        *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
        *("num_attention_heads", "num_key_value_heads", "query_pre_attn_scalar"),
        *("rope_parameters", "sliding_window", "layer_types"),
        *("attn_logit_softcapping", "final_logit_softcapping"),
        *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "use_parallel_residual"),
        *(
            "embedding_multiplier",
            "attention_multiplier",
            "residual_multiplier",
            "logits_scaling",
            "logit_scale",
        ),
    ),
}
"""What changes the numbers although no weight has another name or shape; a family has some of it."""


def normalises(encoder: TransformerEncoder) -> bool:
    """Whether an encoder's tokens went through the network's last normalisation, which LLaVA's never do."""
    if encoder.reading == "normalised":
        return True
    normed = FAMILIES[encoder.network.config.model_type].norms_tokens and encoder.reading == "last"
    return normed and not isinstance(last_norm(encoder.network), nn.Identity)


def load_llava(model: VisionLanguageModel, source: PretrainedSource, *, grids: Sequence[Size] = ()) -> None:
    """Fill every part of a model from a Hugging Face folder of the LLaVA family.

    Args:
        model: What is filled.
        source: The folder or hub name.
        grids: Rows and columns of tiles that the model's pictures are cut into; empty where they are not.

    Raises:
        OSError: The folder is not there, or holds no safetensors file.
        CheckpointError: It holds another kind of model, is incomplete, or does not fit the model; all differences are
            listed.
    """
    configuration = load_configuration(source)
    if configuration.model_type not in _NETWORKS:
        raise CheckpointError(
            f"{source.name} holds a '{configuration.model_type}'; expected one of {', '.join(_NETWORKS)}"
        )
    wrong = [*_disagreements(model, configuration, grids)]
    if wrong:
        raise CheckpointError(
            f"{source.name} computes something else than the model: {'; '.join(wrong)}; write the checkpoint's values "
            "into the recipe"
        )
    network = read_whole(source, _NETWORKS[configuration.model_type])
    inner = network.get_submodule("model")
    newline = {} if configuration.model_type == "llava" else {"vector": inner.get_parameter("image_newline")}
    found = JointWeights(
        vision=inner.get_submodule("vision_tower").state_dict(),
        connector=inner.get_submodule("multi_modal_projector").state_dict(),
        newline=newline or None,
        language=prefixed("decoder", inner.get_submodule("language_model").state_dict())
        | prefixed("head", network.get_submodule("lm_head").state_dict()),
    )
    fill(model, found, name=source.name)


def load_connector(model: VisionLanguageModel, file: Path) -> tuple[str, ...]:
    """Fill the connector, and the newline if it is there, from a file with LLaVA's original keys.

    These are `mm_projector.weight` (one linear layer), or `mm_projector.0.weight` and `mm_projector.2.weight`
    (LLaVA-1.5), their biases and `image_newline`, each with or without `model.` in front.

    Returns:
        Names of the parts that were filled.

    Raises:
        CheckpointError: The file is damaged, holds other weights too, or does not fit the model; all differences are
            listed.
    """
    tensors = read_tensors(file)
    names = {"": "linear", "0.": "linear_1", "2.": "linear_2"}
    connector: dict[str, Tensor] = {}
    newline: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        short = key.removeprefix("model.")
        layer, _, leaf = short.removeprefix("mm_projector.").rpartition(".")
        place = f"{layer}." if layer else ""
        if short == "image_newline":
            newline["vector"] = tensor
        elif short.startswith("mm_projector.") and place in names:
            connector[f"{names[place]}.{leaf}"] = tensor
        else:
            connector[key] = tensor
    found = JointWeights(connector=connector, newline=newline or None)
    return fill(model, found, name=str(file))


def _disagreements(
    model: VisionLanguageModel, configuration: PretrainedConfig, grids: Sequence[Size]
) -> Iterator[str]:
    theirs, ours = configuration.vision_config, network_of(model).config
    for part, here, there in (
        ("vision", ours, theirs),
        ("language", model.language.network.config, configuration.text_config),
    ):
        own, other = here.to_dict(), there.to_dict()
        for key in _ALIKE[part]:
            if own.get(key) != other.get(key):
                yield f"{part}.{key} is {other.get(key)}, the model has {own.get(key)}"
    encoder = encoder_of(model)
    strategy = configuration.vision_feature_select_strategy
    features = STRATEGIES.get(strategy, strategy)
    if features != encoder.features:
        yield f"vision features are '{features}', the model has '{encoder.features}'"
    layer, depth = configuration.vision_feature_layer, int(ours.num_hidden_layers)
    if not isinstance(layer, int):
        yield f"the vision features of several layers are joined ({layer}), the model has one"
    elif (layer if layer >= 0 else layer + int(theirs.num_hidden_layers) + 1) != depth:
        yield f"vision features are those of layer {layer} of {theirs.num_hidden_layers}, the model has layer {depth}"
    if normalises(encoder):
        yield "vision features are not normalised, the model has final_norm: true"
    if configuration.projector_hidden_act != "gelu":
        yield f"the connector's activation is '{configuration.projector_hidden_act}', the model has 'gelu'"
    if configuration.model_type == "llava_next":
        tile = model.vision.image_size
        pinpoints = [[grid.height * tile.height, grid.width * tile.width] for grid in grids]
        if [list(pinpoint) for pinpoint in configuration.image_grid_pinpoints] != pinpoints:
            yield f"image_grid_pinpoints are {configuration.image_grid_pinpoints}, the model has {pinpoints}"
    elif grids:
        yield "it looks at pictures as a whole, the model cuts them into tiles"
