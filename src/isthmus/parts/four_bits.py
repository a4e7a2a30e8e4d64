"""Matrices in 4 bits (QLoRA; Dettmers et al., 2023), which bitsandbytes multiplies by."""

import importlib
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

_PACKS = "support_avx512bf16_for_cpu"
"""The attribute by which a layer of bitsandbytes 0.50 knows whether it may pack its matrix anew."""


def four_bit_settings() -> BitsAndBytesConfig:
    """QLoRA's number format: 4-bit NormalFloat, its scales quantised again, products in bf16 (section 3)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def check_whole(config: PretrainedConfig, name: str) -> None:
    """Refuse a checkpoint whose matrices are in few bits already.

    Raises:
        ValueError: They are.
    """
    if vars(config).get("quantization_config") is not None:
        raise ValueError(
            f"'{name}' holds matrices in few bits already (quantization_config in its config.json); name the "
            "checkpoint with whole ones, and set model.language.quantize: nf4 to hold them in 4 bits here"
        )


def in_four_bits(network: PreTrainedModel) -> bool:
    """Whether a network was loaded so and not made whole since."""
    return bool(vars(network).get("is_quantized"))


def settle(network: PreTrainedModel, name: str) -> None:
    """Make a network that was loaded in 4 bits fit to stay frozen while something before it learns.

    bitsandbytes changes such a layer in place when it is used: its bias becomes bf16, and where a processor has
    products in bf16, a layer in eval mode whose input needs no gradient, as in validation, packs its matrix anew. From
    then on its bytes are not those that a checkpoint was made on, and no gradient passes it. So biases become bf16 here
    and now, and nothing is packed.

    Raises:
        ValueError: The network keeps its matrices in a layout or in layers that cannot be held in 4 bits.
    """
    layers = _layers(network)
    if any(vars(layer).get("source_cls") is Conv1D for layer in layers):
        raise ValueError(
            f"'{name}' keeps its matrices the other way round (GPT-2's Conv1D), in which 4 bits cannot be written "
            "back; set model.language.quantize: null"
        )
    held, rest = (
        sum(layer.in_features * layer.out_features for layer in layers),
        _num_in_other_matrices(network),
    )
    if held < rest:
        raise ValueError(
            f"only {held:,} of {held + rest:,} numbers in the matrices of '{name}' would be held in 4 bits, because "
            "its layers are not torch's own linear ones; set model.language.quantize: null"
        )
    for layer in layers:
        setattr(layer, _PACKS, False)
        if layer.bias is not None:
            layer.bias.data = layer.bias.data.to(torch.bfloat16)


def _layers(network: PreTrainedModel) -> list[Any]:
    kind = importlib.import_module("bitsandbytes.nn").Linear4bit
    return [module for module in network.modules() if isinstance(module, kind)]


def _num_in_other_matrices(network: PreTrainedModel) -> int:
    """Numbers in matrices of floating point that are neither the table of embeddings nor the output head."""
    outside = {
        id(parameter)
        for module in (network.get_input_embeddings(), network.get_output_embeddings())
        if module is not None
        for parameter in module.parameters()
    }
    return sum(
        one.numel()
        for one in network.parameters()
        if one.ndim >= 2 and one.is_floating_point() and id(one) not in outside
    )
