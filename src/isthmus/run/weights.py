"""What a stage hands on: the weights that training moved, with the identity of the frozen ones they belong to."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from isthmus.core.errors import CheckpointError
from isthmus.core.files import free_bytes, replacing, require_space
from isthmus.models.model import Model
from isthmus.training.audit import digest_of, frozen_digests
from isthmus.training.durability import num_bytes, write_tensors
from isthmus.training.parameters import TrainableModule, TrainableSplit, set_trainable
from isthmus.training.state import mismatches

FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What one model takes over from another: all parts by name, but for what is listed.

    Attributes:
        drop: Parts, or beginnings of names such as `connector.text`, that are left behind.
        fresh: Parts, or beginnings of names, that the taker has and the giver lacks; they keep their initial values.
    """

    drop: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def between(
        self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tensors that are given, and those that wait for them.

        Raises:
            CheckpointError: A name fits nothing.
        """
        for key, listed, names in (("drop", self.drop, found), ("fresh", self.fresh, expected)):
            for one in listed:
                if not _matching(names, (one,)):
                    known = ", ".join(sorted({name.rpartition(".")[0] or name for name in names})[:12])
                    raise CheckpointError(
                        f"{file}: '{one}' under {key} fits no tensor there; names begin with {known or 'nothing'}"
                    )
        left_behind, kept_as_is = _matching(found, self.drop), _matching(expected, self.fresh)
        return (
            {name: tensor for name, tensor in found.items() if name not in left_behind},
            {name: tensor for name, tensor in expected.items() if name not in kept_as_is},
        )


def _matching(names: Iterable[str], beginnings: Sequence[str]) -> set[str]:
    """Names that are one of these or lie below one of them."""
    return {name for name in names if any(f"{name}.".startswith(f"{one}.") for one in beginnings)}


def save_weights(model: Model, parts: tuple[str, ...], folder: Path) -> Path:
    """Write the tensors of some parts to `folder/model.safetensors`, whole or not at all.

    Raises:
        MachineError: The disk is full or refuses; what was there is intact.
    """
    split = set_trainable(cast(TrainableModule, model), parts)
    tensors = _held(model, split)
    target = folder / FILE
    metadata = {
        "format": "pt",
        "parts": ",".join(parts),
        "frozen": json.dumps(_frozen_parts(model, split), sort_keys=True),
        "content": _content(tensors),
    }
    advice = "the checkpoints are intact; mend this and go on with --resume"
    with replacing(target, advice=advice) as unfinished:
        needed = num_bytes(tensors)
        require_space(folder, needed=needed, free=free_bytes(folder), what=f"saving {target}")
        write_tensors(unfinished, tensors, metadata)
    return target


def saved_parts(folder: Path) -> tuple[str, ...]:
    """The parts whose weights lie in a folder.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    return _read(folder / FILE, with_tensors=False)[0]


@torch.no_grad()
def load_weights(model: Model, folder: Path, *, transfer: Transfer | None = None) -> tuple[str, ...]:
    """Put saved tensors into a model; returns the names of their parts.

    Args:
        model: What they go into.
        folder: Where they lie.
        transfer: They come from another model, which may have parts that this one lacks and the other way round; only
            what was frozen there and exists here must be the same.

    Raises:
        CheckpointError: The file is missing or damaged, its keys or shapes differ (all are listed), a name under
            `drop` or `fresh` fits nothing, or a frozen part is not the one they were trained beside.
    """
    file = folder / FILE
    saved, frozen, found = _read(file, with_tensors=True)
    chosen = transfer or Transfer()
    parts = tuple(part for part in saved if part not in chosen.drop)
    lacking = sorted(set(parts) - model.parts().keys())
    if lacking and transfer is None:
        raise CheckpointError(
            f"{file} holds the parts {', '.join(lacking)}, which the model lacks; its parts are "
            f"{', '.join(model.parts())}, so restore the file that was written for it"
        )
    split = set_trainable(cast(TrainableModule, model), parts)
    expected = _held(model, split)
    if transfer is not None:
        found, expected = transfer.between(found, expected, file)
    wrong = mismatches(found, expected)
    if wrong:
        raise CheckpointError(f"{file} does not fit the model: {'; '.join(wrong)}")
    here = _frozen_parts(model, split)
    compared = frozen.keys() | here.keys() if transfer is None else frozen.keys() & here.keys()
    other = [part for part in sorted(compared) if frozen.get(part) != here.get(part)]
    if other:
        raise CheckpointError(
            f"{file} was trained beside other frozen weights of {', '.join(other)} than those on this machine; use the "
            "checkpoints that the recipe named when it was trained, in as many bits (model.language.quantize)"
        )
    for name, tensor in expected.items():
        tensor.copy_(found[name])
    return parts


def copy_weights(model: Model, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """A copy of the tensors of some parts, for `put_back`."""
    split = set_trainable(cast(TrainableModule, model), parts)
    return {name: tensor.detach().clone() for name, tensor in _held(model, split).items()}


@torch.no_grad()
def put_back(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Undo every change since `copy_weights`."""
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        held[name].copy_(tensor)


def _held(model: Model, split: TrainableSplit) -> dict[str, Tensor]:
    """The parameters that learn, and the buffers of their parts; what no part holds is a checkpoint's alone."""
    inside = {id(buffer) for part in model.parts().values() for buffer in part.buffers()}
    buffers = ((name, model.get_buffer(name)) for name in split.saved_buffers)
    return dict(split.trainable) | {name: buffer for name, buffer in buffers if id(buffer) in inside}


def _read(file: Path, *, with_tensors: bool) -> tuple[tuple[str, ...], dict[str, str], dict[str, Tensor]]:
    """Parts, digests of the frozen parts, and tensors, which are compared with the digest they were saved with."""
    if not file.is_file():
        raise CheckpointError(
            f"{file} does not exist; go on with `isthmus train RECIPE --out RUN --resume` where the stage did not "
            f"finish, else restore the file from a copy, or remove {file.parent} first"
        )
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            names = stored.keys() if with_tensors else ()
            tensors = {name: stored.get_tensor(name) for name in names}
        parts, frozen = tuple(metadata["parts"].split(",")), json.loads(metadata["frozen"])
        is_whole = not with_tensors or metadata["content"] == _content(tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise _damaged(file, str(error) or type(error).__name__) from error
    if not is_whole:
        raise _damaged(file, "its numbers are not those that were saved")
    return parts, frozen, tensors


def _damaged(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is damaged ({why}); restore it from a copy, or remove {file.parent} and run "
        "`isthmus train RECIPE --out RUN --resume`"
    )


def _content(tensors: Mapping[str, Tensor]) -> str:
    lines = sorted(f"{name} {digest_of(tensor)}" for name, tensor in tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _frozen_parts(model: Model, split: TrainableSplit) -> dict[str, str]:
    """One digest for each part that holds frozen tensors; their names do not count, as LoRA changes them."""
    module = cast(TrainableModule, model)
    owner_of_buffer = {id(buffer): part for part, one in module.parts().items() for buffer in one.buffers()}
    digests: defaultdict[str, list[str]] = defaultdict(list)
    for name, digest in frozen_digests(module, split).items():
        part = split.part_of[name] if name in split.frozen else owner_of_buffer[id(model.get_buffer(name))]
        digests[part].append(digest)
    return {
        part: hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest() for part, found in digests.items()
    }
