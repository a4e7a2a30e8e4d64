"""AdamW over the trainable parts (Loshchilov and Hutter, 2019) and, on request, an average of the weights."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch

from isthmus.core.errors import RecipeError
from isthmus.training.parameters import TrainableSplit
from isthmus.training.schedule import Schedule, learning_rate_factor


@final
@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How weights move.

    Attributes:
        lr: Peak learning rate.
        lr_by_part: Peak learning rate of single parts, instead of `lr`.
        weight_decay: Applied to the weights that `decays` names.
        weight_decay_by_part: That of single parts, instead of `weight_decay`.
        betas: AdamW's two decay rates.
        eps: AdamW's epsilon.
        schedule: How the learning rate falls after the warm-up.
        warmup_fraction: Share of the steps that warm up.
        final_lr_fraction: Where the learning rate falls to, as a share of its peak.
        clip: Largest norm of the whole gradient, or None.
        ema: Decay of the average of the weights, for example 0.999, or None.
    """

    lr: float = 1e-3
    lr_by_part: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    weight_decay_by_part: Mapping[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule = "cosine"
    warmup_fraction: float = 0.03
    final_lr_fraction: float = 0.0
    clip: float | None = 1.0
    ema: float | None = None

    def __post_init__(self) -> None:
        bounds = {
            "lr": (self.lr > 0, self.lr, "above 0"),
            "weight_decay": (self.weight_decay >= 0, self.weight_decay, "0 or more"),
            "warmup_fraction": (0 <= self.warmup_fraction < 1, self.warmup_fraction, "in [0, 1)"),
            "final_lr_fraction": (0 <= self.final_lr_fraction <= 1, self.final_lr_fraction, "in [0, 1]"),
            "clip": (self.clip is None or self.clip > 0, self.clip, "above 0 or null"),
            "ema": (self.ema is None or 0 < self.ema < 1, self.ema, "between 0 and 1 or null"),
        }
        bounds |= {f"lr_by_part.{part}": (lr > 0, lr, "above 0") for part, lr in self.lr_by_part.items()}
        bounds |= {
            f"weight_decay_by_part.{part}": (decay >= 0, decay, "0 or more")
            for part, decay in self.weight_decay_by_part.items()
        }
        for name, (fits, value, expected) in bounds.items():
            if not fits:
                raise RecipeError(f"optimizer.{name} is {value}; expected a number {expected}")

    def factor(self, step: int, num_steps: int) -> float:
        """What every peak learning rate is multiplied by at `step`, see `learning_rate_factor`."""
        return learning_rate_factor(
            step,
            num_steps,
            schedule=self.schedule,
            warmup_fraction=self.warmup_fraction,
            final_fraction=self.final_lr_fraction,
        )


def decays(name: str, tensor: torch.Tensor) -> bool:
    """Whether weight decay applies to a parameter.

    The rule: it has two or more axes, its own name ends in `weight` (matrices, kernels and token tables of modules;
    not class tokens, latents, gates or other bare parameters), and no piece of its path names positions.
    """
    pieces = name.lower().split(".")
    positional = any("position" in piece or piece in ("wpe", "pos_embed") for piece in pieces)
    return tensor.ndim >= 2 and pieces[-1].endswith("weight") and not positional


def build_optimizer(split: TrainableSplit, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW with one group for each part and each side of the weight-decay rule.

    Raises:
        RecipeError: A setting of a single part names something that is not a trained part.
    """
    by_part = {"lr_by_part": settings.lr_by_part, "weight_decay_by_part": settings.weight_decay_by_part}
    for setting, part in ((setting, part) for setting, values in by_part.items() for part in values):
        if part not in split.trained_parts:
            nearest = difflib.get_close_matches(part, split.trained_parts, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise RecipeError(
                f"optimizer.{setting} names {part!r}, which is not trained in this stage; "
                f"trained parts are {', '.join(split.trained_parts)}{hint}"
            )
    groups: list[dict[str, object]] = []
    for part in split.trained_parts:
        lr = settings.lr_by_part.get(part, settings.lr)
        decay = settings.weight_decay_by_part.get(part, settings.weight_decay)
        for decayed in (True, False):
            members = [
                parameter
                for name, parameter in split.trainable.items()
                if split.part_of[name] == part and decays(name, parameter) is decayed
            ]
            if members:
                weight_decay = decay if decayed else 0.0
                groups.append(
                    {"params": members, "weight_decay": weight_decay, "lr": lr, "peak_lr": lr, "part": part}
                )
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in split.trainable.values())
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to its peak times `factor`; return the largest learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(group["lr"] for group in optimizer.param_groups)
