"""What a stage hands on: the weights that training moved, with the identity of the frozen ones they belong to."""

from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from isthmus.core.errors import CheckpointError
from isthmus.models.model import Model
from isthmus.training.audit import frozen_hash
from isthmus.training.durability import sync
from isthmus.training.parameters import TrainableModule, set_trainable


def save_weights(model: Model, parts: tuple[str, ...], folder: Path) -> Path:
    """Write the tensors of some parts to `folder/model.safetensors`, whole or not at all."""
    split = set_trainable(cast(TrainableModule, model), parts)
    tensors = dict(split.trainable) | {name: model.get_buffer(name) for name in split.saved_buffers}
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "model.safetensors"
    temporary = folder / "model.safetensors.tmp"
    save_file(
        {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
        temporary,
        metadata={
            "format": "pt",
            "parts": ",".join(parts),
            "frozen": frozen_hash(cast(TrainableModule, model), split),
        },
    )
    temporary.replace(target)
    sync(folder)
    return target


@torch.no_grad()
def load_weights(model: Model, folder: Path) -> tuple[str, ...]:
    """Put saved tensors into a model; returns the names of their parts.

    Raises:
        CheckpointError: The file is missing or damaged, its keys or shapes differ (all are listed), or the frozen parts are
            not those it was trained beside.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(
            f"{file} does not exist; the stage did not finish: go on with `isthmus train --resume`"
        )
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata()
            found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); train again, or restore it from a copy"
        ) from error
    parts = tuple(metadata["parts"].split(","))
    split = set_trainable(cast(TrainableModule, model), parts)
    expected = dict(split.trainable) | {name: model.get_buffer(name) for name in split.saved_buffers}
    wrong = [f"missing {name}" for name in expected.keys() - found.keys()]
    wrong += [f"unknown {name}" for name in found.keys() - expected.keys()]
    wrong += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if expected[name].shape != found[name].shape
    ]
    if wrong:
        raise CheckpointError(f"{file} does not fit the model: {'; '.join(sorted(wrong))}")
    if frozen_hash(cast(TrainableModule, model), split) != metadata["frozen"]:
        raise CheckpointError(
            f"{file} was trained beside other frozen weights than those on this machine; use the checkpoints that the "
            "recipe named when it was trained"
        )
    for name, tensor in expected.items():
        tensor.copy_(found[name])
    return parts
