"""Checkpoints that a recipe names: where they lie, and what is said when one cannot be read."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isthmus.build.names import card_file, locate
from isthmus.core.errors import CheckpointError, MachineError, RecipeError
from isthmus.parts.checkpoints import PretrainedSource, first_line


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights may come from.

    Attributes:
        random: Build with random weights; nothing is read.
        network_allowed: Hub names may be fetched.
    """

    random: bool = False
    network_allowed: bool = False


def source_of(name: str, revision: str | None, origin: Origin, *, path: str) -> PretrainedSource:
    """A checkpoint's place, with the rule for the network and the hub model's card, if one is shipped."""
    located, card = locate(name, path=path), card_file(name)
    return PretrainedSource(
        name=located,
        revision=revision,
        random=origin.random,
        local_only=not origin.network_allowed,
        card=card if card.is_file() and not Path(located).is_dir() else None,
    )


@contextlib.contextmanager
def reading(name: str, path: str, origin: Origin, *, block: str | None = None) -> Iterator[None]:
    """Say of what goes wrong inside which checkpoint of the recipe it is about.

    Args:
        name: The checkpoint.
        path: Where the name stands in the recipe.
        origin: Whether weights are random, and hub names may be fetched.
        block: What in the recipe does not fit where the checkpoint is read but cannot be used; None: the name.

    Raises:
        MachineError: The checkpoint is not on this machine.
        CheckpointError: It is there, but no checkpoint that can be read.
        RecipeError: It cannot be used as the recipe says.
    """
    try:
        yield
    except OSError as error:
        if Path(locate(name, path=path)).exists():
            raise _unreadable(name, path, first_line(error)) from error
        raise _not_here(name, path, origin) from error
    except ValueError as error:
        found = Path(locate(name, path=path))
        if found.exists() and not (found / "config.json").is_file():
            raise _unreadable(name, path, "it holds no config.json") from error
        raise RecipeError(f"{block or path}: {first_line(error)}") from error


def _unreadable(name: str, path: str, why: str) -> CheckpointError:
    """What is said of something on this machine that is no checkpoint."""
    return CheckpointError(
        f"{path}: '{name}' cannot be read as a Hugging Face folder ({why}); expected config.json and the weights as "
        "safetensors"
    )


def _not_here(name: str, path: str, origin: Origin) -> MachineError:
    """What is said of a checkpoint, or where weights are random of a configuration, that would have to be fetched."""
    if origin.random:
        return MachineError(
            f"{path}: no card of '{name}' is shipped and its configuration is not on this machine; pass "
            "--allow-network to fetch it, give a folder that holds its config.json, or add that file to the package as "
            f"architectures/{card_file(name).name}"
        )
    return MachineError(
        f"{path}: '{name}' is not on this machine and the network is not asked; "
        "pass --allow-network to fetch it, or give a folder"
    )
