"""The parameter table: what each part holds, counted once even where weights are tied."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from isthmus.models.model import Model
from isthmus.nn.positions import FixedGridPositions

_LONGEST = 8
"""Longest list of layers that is taken apart; a part with more than twice as many modules has no rows inside."""


@dataclass(frozen=True, kw_only=True)
class InnerRow:
    """One module inside a part.

    Attributes:
        name: Its name inside the part; `own` for what the part holds outside its modules.
        kind: Its class.
        parameters: Numbers it holds.
        tied: All of them are held by a row above, too, and count there.
    """

    name: str
    kind: str
    parameters: int
    tied: bool = False


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part of a model.

    Attributes:
        name: Its name in recipes.
        kind: What it is, for example `mlp`.
        parameters: Numbers it holds and no smaller part holds.
        fixed: Those of them that never learn: tables of positions that are stored with the weights (MAE).
        inside: The modules it is made of, if there are several; without the tied and the fixed ones they add up to
            `parameters`.
    """

    name: str
    kind: str
    parameters: int
    fixed: int = 0
    inside: tuple[InnerRow, ...] = ()


def part_rows(model: Model, kinds: dict[str, str]) -> tuple[PartRow, ...]:
    """One row a part. A parameter that several parts hold (LoRA inside a language model) counts for the smallest."""
    parts = model.parts()
    seen: set[int] = set()
    rows: dict[str, PartRow] = {}
    for name in sorted(parts, key=lambda part: num_parameters(parts[part])):
        fresh = [parameter for parameter in parts[name].parameters() if id(parameter) not in seen]
        fixed = sum(one.num_stored for one in parts[name].modules() if isinstance(one, FixedGridPositions))
        rows[name] = PartRow(
            name=name,
            kind=kinds.get(name, name),
            parameters=_size(fresh) + fixed,
            fixed=fixed,
            inside=_inner_rows(parts[name], {id(parameter) for parameter in fresh}),
        )
        seen.update(id(parameter) for parameter in fresh)
    return tuple(rows[name] for name in parts)


def _inner_rows(part: nn.Module, owned: set[int]) -> tuple[InnerRow, ...]:
    """One row a module, below those that hold nothing but one other; short lists of layers are taken apart.

    Args:
        part: The part.
        owned: Ids of the parameters that are its own.
    """
    module = part
    while len(children := _children(module, owned)) == 1 and not _direct(module, owned):
        module = children[0][1]
    candidates = [("own", type(module).__name__, _direct(module, owned))]
    for name, child in children:
        taken = (
            [(f"{name}.{inner}", one) for inner, one in child.named_children()]
            if isinstance(child, nn.ModuleList | nn.Sequential) and len(child) <= _LONGEST
            else [(name, child)]
        )
        candidates += [
            (inner, type(one).__name__, [value for value in one.parameters() if id(value) in owned])
            for inner, one in taken
        ]
    rows, counted = [], set()
    for name, kind, held in candidates:
        fresh = [parameter for parameter in held if id(parameter) not in counted]
        if held:
            rows.append(InnerRow(name=name, kind=kind, parameters=_size(fresh or held), tied=not fresh))
        counted.update(id(parameter) for parameter in fresh)
    return tuple(rows) if 1 < len(rows) <= 2 * _LONGEST else ()


def _children(module: nn.Module, owned: set[int]) -> list[tuple[str, nn.Module]]:
    """Children that hold some of the owned parameters."""
    return [
        (name, child)
        for name, child in module.named_children()
        if any(id(parameter) in owned for parameter in child.parameters())
    ]


def _direct(module: nn.Module, owned: set[int]) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters(recurse=False) if id(parameter) in owned]


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def num_parameters(module: nn.Module) -> int:
    """Numbers a module holds; tied weights count once."""
    return _size(module.parameters())


def stage_split(
    rows: Sequence[PartRow], trained: Sequence[str], *, frozen: Iterable[nn.Parameter] = ()
) -> tuple[int, int]:
    """How many numbers a stage trains and how many it freezes; `frozen` stays so inside parts that are trained."""
    trainable = sum(row.parameters - row.fixed for row in rows if row.name in trained) - _size(frozen)
    return trainable, sum(row.parameters for row in rows) - trainable
