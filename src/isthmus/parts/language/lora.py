"""Low-rank updates of a frozen language model (Hu et al., 2022, section 4.1), through peft."""

from dataclasses import dataclass

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Which linear layers get an update and how large it is.

    Attributes:
        rank: Inner width of the update.
        alpha: The update is scaled by `alpha / rank`.
        targets: Names of the linear layers, such as `q_proj`.
        dropout: Fraction of the update's inputs dropped in training.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    dropout: float = 0.0


class LoraUpdate(nn.Module):
    """A view on the update's layers inside the language model, so that recipes can train them as `lora`."""

    def __init__(self, layers: list[LoraLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([layer.lora_A, layer.lora_B, layer.lora_dropout]) for layer in layers
        )


def add_lora(network: PreTrainedModel, settings: LoraSettings) -> LoraUpdate:
    """Add the updates in place; at the start they change nothing (B is zero).

    Raises:
        ValueError: A target matches no linear layer.
    """
    linear = {
        name.rsplit(".", 1)[-1] for name, module in network.named_modules() if isinstance(module, nn.Linear)
    }
    missing = sorted(set(settings.targets) - linear)
    if missing:
        raise ValueError(
            f"LoRA targets {', '.join(missing)} match no linear layer; this model has {', '.join(sorted(linear))}"
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
    )
    inject_adapter_in_model(config, network)
    return LoraUpdate([module for module in network.modules() if isinstance(module, LoraLayer)])
