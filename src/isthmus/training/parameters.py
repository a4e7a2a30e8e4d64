"""Which parameters a stage trains: explicit, by part, with every parameter in exactly one part."""

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from torch import Tensor, nn

from isthmus.core.errors import RecipeError
from isthmus.core.protocols import TrainableModel


class TrainableModule(TrainableModel, Protocol):
    """A trainable model that is also a `torch.nn.Module`: what this layer uses of the two."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter once, tied ones under their first name."""
        ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Every buffer once."""
        ...

    def get_buffer(self, target: str) -> Tensor:
        """One buffer by its name."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers."""
        ...

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode of every module."""
        ...

    def eval(self) -> nn.Module:
        """Set every module to evaluation mode."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One line of the parameter table; numbers count scalars."""

    part: str
    parameters: int
    trainable: int

    @property
    def frozen(self) -> int:
        """Scalars of this part that do not learn."""
        return self.parameters - self.trainable


@final
@dataclass(frozen=True, kw_only=True)
class TrainableSplit:
    """Which tensors learn and which do not.

    Attributes:
        trainable: Parameters that learn, by name.
        frozen: Parameters that do not, by name.
        part_of: The part of every parameter name.
        saved_buffers: Names of persistent buffers outside frozen parts; training may change them, so they are saved.
        frozen_buffers: Names of persistent buffers inside frozen parts, for example statistics of a batch norm.
        rows: The parameter table, one row a part in the model's order.
    """

    trainable: dict[str, nn.Parameter]
    frozen: dict[str, nn.Parameter]
    part_of: dict[str, str]
    saved_buffers: tuple[str, ...]
    frozen_buffers: tuple[str, ...]
    rows: tuple[PartRow, ...]

    @property
    def num_trainable(self) -> int:
        """Scalars that learn."""
        return sum(row.trainable for row in self.rows)

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """Names of the parts that learn."""
        return tuple(row.part for row in self.rows if row.trainable)

    def table(self) -> str:
        """The parameter table as plain text."""
        total = PartRow(
            part="total", parameters=sum(row.parameters for row in self.rows), trainable=self.num_trainable
        )
        width = max(len(row.part) for row in (*self.rows, total))
        lines = [f"{'part':<{width}} {'parameters':>14} {'trainable':>14} {'frozen':>14}"]
        lines += [
            f"{row.part:<{width}} {row.parameters:>14,} {row.trainable:>14,} {row.frozen:>14,}"
            for row in (*self.rows, total)
        ]
        return "\n".join(lines)


def set_trainable(
    model: TrainableModule, names: Sequence[str], *, frozen: Iterable[nn.Parameter] = ()
) -> TrainableSplit:
    """Let the named parts learn and freeze every other parameter.

    A parameter that several parts hold (LoRA's inside the language model, tied weights) belongs to the part with the
    fewest parameters.

    Args:
        model: The model; its mode is not changed here, see `set_modes`.
        names: Names of the parts to train, as in `model.parts()`.
        frozen: Parameters inside these parts that do not learn.

    Raises:
        RecipeError: A name is no part, a named part has nothing to train, or the parts do not cover the parameters.
    """
    parts = model.parts()
    _check_names(names, parts)
    owners = _owners(
        model.named_parameters(), {part: list(module.parameters()) for part, module in parts.items()}
    )
    orphans = [name for name, owner in owners.items() if owner is None]
    if orphans:
        raise RecipeError(
            f"{len(orphans)} parameters belong to no part of the model, first {orphans[0]!r}; expected the parts "
            f"{', '.join(parts)} to hold every parameter; add a part for them to the model's `parts()`"
        )
    part_of = {name: owner for name, owner in owners.items() if owner is not None}
    kept = {id(parameter) for parameter in frozen}
    for name, parameter in model.named_parameters():
        wanted = part_of[name] in names and id(parameter) not in kept
        parameter.requires_grad_(wanted and parameter.is_floating_point())  # 4 bits never learn
    split = _split(model, parts, part_of)
    empty = [part for part in names if part not in split.trained_parts]
    if empty:
        raise RecipeError(
            f"part {empty[0]!r} has no parameters of its own, so it cannot be trained; "
            f"parts that can: {', '.join(row.part for row in split.rows if row.parameters)}"
        )
    return split


def set_modes(model: TrainableModule) -> None:
    """Put the model in train mode and every frozen part of it in evaluation mode.

    Frozen dropout stays off and frozen batch norms keep their statistics. A part inside another part (LoRA inside a
    frozen language model) follows its own state: a part is frozen when none of its own parameters learns.
    """
    model.train()
    parts = model.parts()
    owners = _owners(
        model.named_parameters(), {part: list(module.parameters()) for part, module in parts.items()}
    )
    learning = {owners[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    for part in sorted(parts, key=lambda part: -_size(parts[part].parameters())):
        parts[part].train(part in learning)


def _check_names(names: Sequence[str], parts: dict[str, nn.Module]) -> None:
    if not names:
        raise RecipeError(f"the stage trains nothing; name at least one part of: {', '.join(parts)}")
    for name in names:
        if name not in parts:
            nearest = difflib.get_close_matches(name, parts, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise RecipeError(f"the model has no part {name!r}; its parts are {', '.join(parts)}{hint}")


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(_num_scalars(tensor) for tensor in tensors)


def _num_scalars(tensor: Tensor) -> int:
    """A matrix that bitsandbytes holds in 4 bits has two to a byte, and its own shape beside them."""
    state = vars(tensor).get("quant_state")
    return tensor.numel() if state is None else math.prod(state.shape)


def _owners(
    named: Iterable[tuple[str, Tensor]], held: dict[str, list[nn.Parameter]] | dict[str, list[Tensor]]
) -> dict[str, str | None]:
    """The part of each named tensor: of those that hold it the smallest, or None."""
    smallest_first = sorted(held, key=lambda part: _size(held[part]))
    holders: dict[int, str] = {}
    for part in smallest_first:
        for tensor in held[part]:
            holders.setdefault(id(tensor), part)
    return {name: holders.get(id(tensor)) for name, tensor in named}


def _split(model: TrainableModule, parts: dict[str, nn.Module], part_of: dict[str, str]) -> TrainableSplit:
    parameters = dict(model.named_parameters())
    rows = []
    for part in parts:
        own = [parameter for name, parameter in parameters.items() if part_of[name] == part]
        rows.append(
            PartRow(part=part, parameters=_size(own), trainable=_size(p for p in own if p.requires_grad))
        )
    learning = {row.part for row in rows if row.trainable}
    persistent = model.state_dict().keys()
    buffers = _owners(
        ((name, buffer) for name, buffer in model.named_buffers() if name in persistent),
        {part: list(module.buffers()) for part, module in parts.items()},
    )
    return TrainableSplit(
        trainable={name: p for name, p in parameters.items() if p.requires_grad},
        frozen={name: p for name, p in parameters.items() if not p.requires_grad},
        part_of=part_of,
        saved_buffers=tuple(name for name, owner in buffers.items() if owner is None or owner in learning),
        frozen_buffers=tuple(
            name for name, owner in buffers.items() if owner is not None and owner not in learning
        ),
        rows=tuple(rows),
    )
