"""Low-rank updates of a frozen language model (Hu et al., 2022, section 4.1), through peft and in its folder layout."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from isthmus.parts.checkpoints import quiet
from isthmus.parts.four_bits import in_four_bits

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_NAME = "default"
_PREFIX = "base_model.model."
_MUST_BE_OFF = (
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "exclude_modules",
    "target_parameters",
    "trainable_token_indices",
    "lora_bias",
)
"""Settings of PEFT that change what a low-rank update computes and that are not built here."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Which linear layers get an update and how large it is.

    Attributes:
        rank: Inner width of the update.
        alpha: The update is scaled by `alpha / rank`.
        targets: Names of the linear layers, such as `q_proj`, or ends of their paths, such as `self_attn.q_proj`.
        dropout: Fraction of the update's inputs dropped in training.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    dropout: float = 0.0


class LoraUpdate(nn.Module):
    """A view on the update's layers inside the language model, so that recipes can train them as `lora`."""

    def __init__(self, *, network: PreTrainedModel, settings: LoraSettings) -> None:
        """Look at a network that `add_lora` changed.

        Args:
            network: The language model; it is not held as a part of this module.
            settings: What was added to it.
        """
        super().__init__()
        found = {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}
        self.settings = settings
        self.names = tuple(found)
        self.layers = nn.ModuleList(
            nn.ModuleList([layer.lora_A, layer.lora_B, layer.lora_dropout]) for layer in found.values()
        )
        self._base = str(network.name_or_path)
        self._rows_are_inputs = any(isinstance(layer.get_base_layer(), Conv1D) for layer in found.values())

    def tensors(self) -> dict[str, Float[Tensor, "out in"]]:
        """The matrices under the names that PEFT gives them in a file."""
        named = {}
        for name, held in zip(self.names, self.layers, strict=True):
            for which, module in zip(("lora_A", "lora_B"), cast(nn.ModuleList, held), strict=False):
                matrix = cast(nn.Linear, cast(nn.ModuleDict, module)[_NAME])
                named[f"{_PREFIX}{name}.{which}.weight"] = matrix.weight
        return named

    def save(self, folder: Path) -> None:
        """Write a folder that `peft.PeftModel.from_pretrained` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        config = _config(self.settings, rows_are_inputs=self._rows_are_inputs)
        config.base_model_name_or_path = self._base
        config.inference_mode = True
        config.save_pretrained(str(folder))
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in self.tensors().items()},
            folder / WEIGHTS_FILE,
            metadata={"format": "pt"},
        )


def add_lora(network: PreTrainedModel, settings: LoraSettings) -> LoraUpdate:
    """Add the updates in place; at the start they change nothing (B is zero).

    Raises:
        ValueError: A target matches no linear layer, or targets of two layouts are mixed.
    """
    linear = {
        name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    missing = sorted(
        target for target in settings.targets if not any(_matches(name, target) for name in linear)
    )
    if missing:
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise ValueError(
            f"LoRA targets {', '.join(missing)} match no linear layer; this model has {', '.join(known)}"
        )
    chosen = [
        module
        for name, module in linear.items()
        if any(_matches(name, target) for target in settings.targets)
    ]
    layouts = {isinstance(module, Conv1D) for module in chosen}
    if len(layouts) > 1:
        raise ValueError(
            f"LoRA targets {', '.join(settings.targets)} name layers that keep their matrices in two layouts "
            "(GPT-2's own and torch's), which one update cannot span; name only layers inside the blocks"
        )
    inject_adapter_in_model(_config(settings, rows_are_inputs=layouts == {True}), network)
    update = LoraUpdate(network=network, settings=settings)
    # Beside matrices in 4 bits peft makes them in bf16, whose steps are too coarse for what one update adds.
    return update.float()


def merge_lora(network: PreTrainedModel) -> int:
    """Add the updates to the matrices they belong to and take them out, in place; returns how many there were.

    Rounding differs: (W + s B A) x is computed where W x + s B (A x) was. Matrices in 4 bits become fp32 ones first, in
    which an update is not rounded away.
    """
    were_small = in_four_bits(network)
    if were_small:
        with quiet():
            network.dequantize(dtype=torch.float32).float()
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        # The mixin comes before nn.Module, so a type checker does not see that every such layer can merge.
        update = cast(Any, layer)
        if were_small:  # whose own way to merge takes the matrix below for one of 4 bits
            with torch.no_grad():
                cast(nn.Linear, layer.get_base_layer()).weight.add_(update.get_delta_weight(_NAME))
        else:
            update.merge(safe_merge=True)
        network.set_submodule(name, layer.get_base_layer())
    return len(layers)


def read_lora(folder: Path) -> tuple[LoraSettings, dict[str, Float[Tensor, "out in"]]]:
    """What a PEFT folder holds; nothing in it is imported or run.

    Raises:
        ValueError: A file is missing or damaged, or the update is of a kind that is not built here.
    """
    try:
        found = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except OSError as error:
        raise ValueError(
            f"{folder.name} is no PEFT folder ({error}); expected {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder.name} is damaged ({error}); restore it from a copy") from error
    kind = found.get("peft_type") if isinstance(found, dict) else None
    if kind != "LORA":
        raise ValueError(f"{folder.name} holds the PEFT type {kind!r}; expected 'LORA'")
    used = [key for key in _MUST_BE_OFF if found.get(key)]
    if found.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise ValueError(
            f"{folder.name} uses {', '.join(used)}, which is not built here; expected a plain low-rank update"
        )
    match found:
        case {"r": int(rank), "lora_alpha": int(alpha), "lora_dropout": int() | float() as dropout, **rest}:
            targets = rest.get("target_modules")
        case _:
            raise ValueError(
                f"{folder.name} lacks the numbers r, lora_alpha or lora_dropout; expected all three"
            )
    if not isinstance(targets, list) or not targets:
        raise ValueError(
            f"{folder.name} has the target_modules {targets!r}; expected a list of layer names, not a pattern"
        )
    named = tuple(sorted(str(target) for target in targets))
    return LoraSettings(rank=rank, alpha=alpha, targets=named, dropout=float(dropout)), tensors


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _config(settings: LoraSettings, *, rows_are_inputs: bool) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        fan_in_fan_out=rows_are_inputs,
        bias="none",
    )
