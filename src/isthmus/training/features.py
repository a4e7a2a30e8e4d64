"""The feature store: what a frozen vision encoder gives for each picture, written once and read by memory map."""

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import safetensors
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import DataError, MachineError, RecipeError
from isthmus.core.files import free_bytes, require_space, sync, write_json
from isthmus.training.durability import write_tensors
from isthmus.training.lock import DirectoryLock

_LOG = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NAMES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

StoreDtype = Literal["float32", "float16", "bfloat16"]
Key = Mapping[str, object]


@final
@dataclass(frozen=True, kw_only=True)
class WriteReport:
    """What `FeatureStore.write` did."""

    written: int
    skipped: int
    bytes: int


def store_bytes(*, num_pictures: int, num_patches: int, dim: int, dtype: StoreDtype) -> int:
    """Bytes that a feature store takes: 2 or 4 a number, and about 100 a picture for its name."""
    return num_pictures * (num_patches * dim * _DTYPES[dtype].itemsize + 100)


def key_hash(key: Key) -> str:
    """SHA-256 of a key, independent of the order of its entries."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


@final
class FeatureStore:
    """Features of pictures, found by the SHA-256 of the picture file's bytes; implements `StoredFeatures`.

    A store is a directory named by its key. It holds shards, each one safetensors file with the features of up to
    `pictures_per_shard` pictures and, in its header, the digests of these pictures in order. A shard appears by one
    rename with its index inside, so an interrupted write loses at most the shard it was filling. All pictures of a
    store have the same number of patches.

    Args:
        root: Where stores lie.
        key: Everything that decides the features: hash of the weights, layer, kind of features, final norm,
            preprocessing. The number format is added to it.
        dtype: Number format on disk; `read` always gives float32.
        vision_is_trained: Whether the stage trains the vision encoder.
        pictures_per_shard: Pictures in one file.

    Raises:
        RecipeError: The stage trains the vision encoder, so stored features would go stale.
    """

    def __init__(
        self,
        root: Path,
        key: Key,
        *,
        dtype: StoreDtype = "float16",
        vision_is_trained: bool = False,
        pictures_per_shard: int = 512,
    ) -> None:
        if vision_is_trained:
            raise RecipeError(
                "features are stored, but this stage trains the part 'vision', so they would no longer be its output; "
                "expected a frozen 'vision'; set `features: null` or leave 'vision' out of `train`"
            )
        self._key = {**key, "dtype": dtype}
        self._dtype = dtype
        self._pictures_per_shard = pictures_per_shard
        self.directory = root / key_hash(self._key)[:32]
        self._shards: list[Float[Tensor, "image patch dim"]] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: set[str] = set()
        self._open_new_shards()

    def __contains__(self, digest: str) -> bool:
        return digest in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int] | None:
        """Patches and dimensions of one picture, or None while the store is empty."""
        return (self._shards[0].shape[1], self._shards[0].shape[2]) if self._shards else None

    def missing(self, digests: Iterable[str]) -> list[str]:
        """The digests that are not stored yet, once each and in order."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self._places]

    def read(self, digest: str) -> Float[Tensor, "patch dim"]:
        """The features of one picture.

        Raises:
            DataError: The picture is not stored.
        """
        return self._stored(digest).to(torch.float32, copy=True)

    def read_batch(self, digests: Sequence[str]) -> Float[Tensor, "image patch dim"]:
        """The features of several pictures, in order.

        Raises:
            DataError: A picture is not stored.
        """
        rows = [self._stored(digest) for digest in digests]
        batch = torch.empty(len(rows), *(self.shape or (0, 0)))
        for place, row in zip(batch, rows, strict=True):
            place.copy_(row)
        return batch

    def write(
        self,
        pictures: Iterable[tuple[str, Float[Tensor, "patch dim"]]],
        *,
        num_pictures: int,
        free: Callable[[Path], int] = free_bytes,
    ) -> WriteReport:
        """Store features, passing over pictures that are stored already.

        Args:
            pictures: Digest and features of each picture; an iterator may encode as it goes.
            num_pictures: How many there will be, at most; the disk is checked for their size before the first write.
            free: How many bytes are free on the disk of a directory (a seam for tests).

        Raises:
            CheckpointError: Another process writes this store.
            DataError: Features differ in shape, or a number does not fit `dtype`.
            MachineError: The disk is too small or refuses.
        """
        names: list[str] = []
        rows: list[Tensor] = []
        written = skipped = num_bytes = 0
        with DirectoryLock(self.directory):
            for left in self.directory.glob("shard-*.tmp-*"):
                left.unlink()
            self._open_new_shards()
            for digest, features in pictures:
                if digest in self._places or digest in names:
                    skipped += 1
                    continue
                if written + len(rows) == 0:
                    self._check_space(features, num_pictures, free)
                rows.append(self._converted(digest, features, rows))
                names.append(digest)
                if len(rows) == self._pictures_per_shard:
                    num_bytes += self._publish(names, rows)
                    written += len(rows)
                    names, rows = [], []
            if rows:
                num_bytes += self._publish(names, rows)
                written += len(rows)
        return WriteReport(written=written, skipped=skipped, bytes=num_bytes)

    def _stored(self, digest: str) -> Float[Tensor, "patch dim"]:
        if digest not in self._places:
            raise DataError(
                f"the feature store {self.directory} holds nothing for the picture with SHA-256 {digest[:16]}...; "
                f"expected every picture of the data to be stored first; write the missing ones or set `features: null`"
            )
        shard, row = self._places[digest]
        return self._shards[shard][row]

    def _converted(self, digest: str, features: Tensor, rows: Sequence[Tensor]) -> Tensor:
        shape = self.shape or (tuple(rows[0].shape) if rows else tuple(features.shape))
        if tuple(features.shape) != shape:
            raise DataError(
                f"features of the picture with SHA-256 {digest[:16]}... have shape {tuple(features.shape)}, others in "
                f"{self.directory} have {shape}; expected one shape; give all pictures one size or set `features: null`"
            )
        converted = features.detach().to(_DTYPES[self._dtype]).cpu().clone()
        if not bool(torch.isfinite(converted).all()):
            largest = features.detach().abs().max().item()
            raise DataError(
                f"features of the picture with SHA-256 {digest[:16]}... hold numbers up to {largest:g} that "
                f"{self._dtype} cannot hold; expected finite ones; set `features.dtype` to bfloat16 or float32"
            )
        return converted

    def _check_space(self, features: Tensor, num_pictures: int, free: Callable[[Path], int]) -> None:
        patches, dim = features.shape
        needed = store_bytes(num_pictures=num_pictures, num_patches=patches, dim=dim, dtype=self._dtype)
        what = f"storing the features of {num_pictures:,} pictures ({patches} x {dim} {self._dtype} each)"
        require_space(self.directory, needed=needed, free=free(self.directory), what=what)
        _LOG.info("%s takes %.1f MB in %s", what, needed / 1e6, self.directory)

    def _publish(self, names: Sequence[str], rows: Sequence[Tensor]) -> int:
        number = 1 + max((int(path.stem.split("-")[1]) for path in self._paths()), default=-1)
        target = self.directory / f"shard-{number:05d}.safetensors"
        temporary = self.directory / f"{target.name}.tmp-{uuid.uuid4().hex}"
        try:
            if not (self.directory / "key.json").exists():
                write_json(self.directory / "key.json", self._key)
            write_tensors(
                temporary, {"features": torch.stack(list(rows))}, {"digests": json.dumps(list(names))}
            )
            temporary.rename(target)
            sync(self.directory)
        except OSError as error:
            raise MachineError(
                f"writing {target} failed: {error.strerror}; {free_bytes(self.directory):,} bytes are free; finished "
                f"shards are intact; mend this and run the same command again"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._open_new_shards()
        return target.stat().st_size

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob("shard-*.safetensors"))

    def _open_new_shards(self) -> None:
        for path in self._paths():
            if path.name in self._opened:
                continue
            self._opened.add(path.name)
            try:
                digests, features = _map_shard(path)
            except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                _LOG.warning(
                    "feature shard %s is damaged (%s) and left out; its pictures count as missing",
                    path,
                    error,
                )
                continue
            for row, digest in enumerate(digests):
                self._places[digest] = (len(self._shards), row)
            self._shards.append(features)


def _map_shard(path: Path) -> tuple[list[str], Float[Tensor, "image patch dim"]]:
    """The digests of a shard and its features, mapped copy-on-write, so that nothing can write to the file."""
    with safetensors.safe_open(path, framework="pt") as file:  # checks lengths and offsets against the file
        digests = json.loads(file.metadata()["digests"])
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))["features"]
    num_images, num_patches, dim = entry["shape"]
    if len(digests) != num_images:
        raise ValueError(f"{len(digests)} digests for {num_images} pictures")
    dtype = _NAMES[entry["dtype"]]
    count = num_images * num_patches * dim * dtype.itemsize
    raw = np.memmap(
        path, dtype=np.uint8, mode="c", offset=8 + length + entry["data_offsets"][0], shape=(count,)
    )
    numbers = torch.from_numpy(raw).view(dtype)
    return digests, rearrange(numbers, "(i p d) -> i p d", i=num_images, p=num_patches, d=dim)
