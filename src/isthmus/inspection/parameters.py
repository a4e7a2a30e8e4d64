"""The parameter table: what each part holds, counted once even where weights are tied."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from isthmus.models.model import Model


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part of a model.

    Attributes:
        name: Its name in recipes.
        kind: What it is, for example `mlp`.
        parameters: Numbers it holds and no smaller part holds.
    """

    name: str
    kind: str
    parameters: int


def part_rows(model: Model, kinds: dict[str, str]) -> tuple[PartRow, ...]:
    """One row a part. A parameter that several parts hold (LoRA inside a language model) counts for the smallest."""
    parts = model.parts()
    seen: set[int] = set()
    own: dict[str, int] = {}
    for name in sorted(parts, key=lambda part: num_parameters(parts[part])):
        fresh = [parameter for parameter in parts[name].parameters() if id(parameter) not in seen]
        own[name] = sum(parameter.numel() for parameter in fresh)
        seen.update(id(parameter) for parameter in fresh)
    return tuple(PartRow(name=name, kind=kinds.get(name, name), parameters=own[name]) for name in parts)


def num_parameters(module: nn.Module) -> int:
    """Numbers a module holds; tied weights count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def stage_split(rows: Sequence[PartRow], trained: Sequence[str]) -> tuple[int, int]:
    """How many numbers a stage trains and how many it freezes."""
    trainable = sum(row.parameters for row in rows if row.name in trained)
    return trainable, sum(row.parameters for row in rows) - trainable
