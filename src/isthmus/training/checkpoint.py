"""Checkpoints: directories that are complete or do not exist, and a loader that trusts none of them unread."""

import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, MachineError
from isthmus.core.files import file_hash, free_bytes, require_space, sync, write_json
from isthmus.training.durability import num_bytes, write_tensors

_LOG = logging.getLogger(__name__)
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_MANIFEST = "manifest.json"

TensorWriter = Callable[[Path, Mapping[str, Tensor]], None]
Json = dict[str, Any]
"""What a checkpoint keeps besides tensors: anything JSON can hold."""


@final
@dataclass(frozen=True, kw_only=True)
class CheckpointIdentity:
    """What a checkpoint belongs to and was computed on.

    Attributes:
        recipe_hash: Hash of the resolved recipe; another one is refused.
        frozen_hash: `audit.frozen_hash` of the model; another one is refused.
        torch_version: Another one is a warning: the continuation may differ in the last bits.
        num_threads: As `torch_version`.
        cpu_capability: As `torch_version`.
    """

    recipe_hash: str
    frozen_hash: str
    torch_version: str
    num_threads: int
    cpu_capability: str

    @classmethod
    def here(cls, *, recipe_hash: str, frozen_hash: str) -> Self:
        """The identity of a run on this machine."""
        return cls(
            recipe_hash=recipe_hash,
            frozen_hash=frozen_hash,
            torch_version=torch.__version__,
            num_threads=torch.get_num_threads(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
        )


@final
@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a complete checkpoint held; `refused` says why newer ones were passed over."""

    step: int
    tensors: dict[str, Tensor]
    state: Json
    path: Path
    refused: tuple[str, ...]


@final
class CheckpointStore:
    """The checkpoints of one stage.

    A checkpoint is written as `step-N.tmp-<uuid>`, synced file by file, given a manifest with sizes and SHA-256, and
    renamed to `step-N`; a published one is never overwritten.

    Args:
        directory: Where the checkpoints lie; made when the first is saved.
        identity: What they belong to.
        keep: How many of the newest stay.
        write: How tensors reach the disk (a seam for tests of full disks and crashes).
        free: How many bytes are free on the disk of a directory (a seam for tests).
    """

    def __init__(
        self,
        directory: Path,
        *,
        identity: CheckpointIdentity,
        keep: int = 2,
        write: TensorWriter = write_tensors,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        assert keep >= 1
        self._directory = directory
        self._identity = identity
        self._keep = keep
        self._write = write
        self._free = free

    def steps(self) -> list[int]:
        """Steps of the published checkpoints, oldest first; they may be damaged."""
        if not self._directory.is_dir():
            return []
        names = (
            re.fullmatch(r"step-(\d+)", path.name) for path in self._directory.iterdir() if path.is_dir()
        )
        return sorted(int(match[1]) for match in names if match)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Json) -> Path:
        """Publish the checkpoint of `step`; where a good one exists already, that one stays.

        Raises:
            MachineError: The disk is full or refuses; older checkpoints are intact and nothing half-written is left.
        """
        target = self._directory / f"step-{step}"
        if target.exists():
            problem = _problem(target)
            if problem is None:
                return target
            target.rename(target.with_name(f"{target.name}.refused-{uuid.uuid4().hex}"))
        needed = num_bytes(tensors)
        temporary = self._directory / f"{target.name}.tmp-{uuid.uuid4().hex}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            what = f"saving step {step}"
            require_space(self._directory, needed=needed, free=self._free(self._directory), what=what)
            temporary.mkdir()
            self._fill(temporary, step, tensors, state)
            temporary.rename(target)
            sync(self._directory)
        except OSError as error:
            raise MachineError(
                f"saving step {step} failed: {error.strerror}; it needs {needed:,} bytes and "
                f"{self._free(_existing(self._directory)):,} bytes are free on the disk of {self._directory}; "
                f"earlier checkpoints are intact; mend this and go on with --resume"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._retire()
        return target

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that is complete and undamaged, or None where none was ever saved.

        Raises:
            CheckpointError: Every checkpoint is damaged, or the newest good one belongs to another recipe or base.
        """
        self._remove_unfinished()
        refused: list[str] = []
        for step in reversed(self.steps()):
            path = self._directory / f"step-{step}"
            problem = _problem(path)
            if problem is None:
                return self._read(path, tuple(refused))
            refused.append(f"{path.name}: {problem}")
            _LOG.warning("checkpoint %s is refused: %s; trying the one before", path, problem)
        if refused:
            raise CheckpointError(
                f"no checkpoint in {self._directory} can be used ({'; '.join(refused)}); expected at least one whose "
                f"files match its manifest; train again in a new directory"
            )
        return None

    def _fill(self, folder: Path, step: int, tensors: Mapping[str, Tensor], state: Json) -> None:
        self._write(folder / _TENSORS, tensors)
        write_json(folder / _STATE, {"step": step, "identity": asdict(self._identity), "state": state})
        files = {
            name: {"bytes": (folder / name).stat().st_size, "sha256": file_hash(folder / name)}
            for name in (_TENSORS, _STATE)
        }
        write_json(folder / _MANIFEST, {"format": 1, "files": files})
        sync(folder)

    def _read(self, path: Path, refused: tuple[str, ...]) -> Checkpoint:
        content = json.loads((path / _STATE).read_text(encoding="utf-8"))
        self._check_identity(path, CheckpointIdentity(**content["identity"]))
        try:
            tensors = safetensors.torch.load_file(path / _TENSORS)
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"{path / _TENSORS} is not a safetensors file: {error}; remove {path}"
            ) from error
        return Checkpoint(
            step=content["step"], tensors=tensors, state=content["state"], path=path, refused=refused
        )

    def _check_identity(self, path: Path, saved: CheckpointIdentity) -> None:
        here = self._identity
        for what, found, expected in (
            ("recipe", saved.recipe_hash, here.recipe_hash),
            ("frozen base model", saved.frozen_hash, here.frozen_hash),
        ):
            if found != expected:
                raise CheckpointError(
                    f"checkpoint {path} belongs to another {what} (its hash is {found[:12]}, this run's is "
                    f"{expected[:12]}); resume with the {what} it was made with, or start in a new directory"
                )
        for what, before, now in (
            ("torch version", saved.torch_version, here.torch_version),
            ("number of threads", saved.num_threads, here.num_threads),
            ("CPU capability", saved.cpu_capability, here.cpu_capability),
        ):
            if before != now:
                _LOG.warning(
                    "the %s was %s when %s was saved and is %s now; the continuation may differ in the last bits",
                    what,
                    before,
                    path,
                    now,
                )

    def _remove_unfinished(self) -> None:
        if self._directory.is_dir():
            for path in sorted(self._directory.iterdir()):
                if re.fullmatch(r"step-\d+\.(tmp|trash)-[0-9a-f]{32}", path.name):
                    _LOG.warning("removing %s, which a stopped save or clean-up left behind", path)
                    shutil.rmtree(path)

    def _retire(self) -> None:
        for step in self.steps()[: -self._keep]:
            path = self._directory / f"step-{step}"
            trash = path.with_name(f"{path.name}.trash-{uuid.uuid4().hex}")
            path.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def _existing(directory: Path) -> Path:
    return next(path for path in (directory, *directory.absolute().parents) if path.is_dir())


def _problem(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        files = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["files"]
        for name in (_TENSORS, _STATE):
            size = os.stat(path / name).st_size
            if size != files[name]["bytes"]:
                return f"{name} has {size:,} bytes instead of {files[name]['bytes']:,}"
            if file_hash(path / name) != files[name]["sha256"]:
                return f"the SHA-256 of {name} does not match the manifest"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{_MANIFEST} cannot be read ({type(error).__name__})"
    return None
