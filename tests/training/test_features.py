import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from isthmus.core.errors import CheckpointError, DataError, MachineError, RecipeError
from isthmus.core.protocols import StoredFeatures
from isthmus.core.randomness import generator_of
from isthmus.training.features import FeatureStore, key_hash, store_bytes
from isthmus.training.lock import DirectoryLock

KEY = {
    "weights": "w" * 64,
    "layer": 3,
    "features": "patches",
    "final_norm": True,
    "preprocessing": {"size": [8, 8]},
}


def _picture(number: int) -> tuple[str, torch.Tensor]:
    return hashlib.sha256(str(number).encode()).hexdigest(), torch.randn(4, 6, generator=generator_of(number))


def _pictures(*numbers: int) -> Iterator[tuple[str, torch.Tensor]]:
    return (_picture(number) for number in numbers)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_what_is_written_is_read(tmp_path: Path, dtype: str, tolerance: float) -> None:
    report = FeatureStore(tmp_path, KEY, dtype=dtype, pictures_per_shard=4).write(
        _pictures(*range(10)), num_pictures=10
    )
    assert (report.written, report.skipped) == (10, 0)
    store = FeatureStore(tmp_path, KEY, dtype=dtype)
    assert isinstance(store, StoredFeatures)
    assert len(store) == 10
    assert store.shape == (4, 6)
    for number in reversed(range(10)):
        digest, features = _picture(number)
        assert digest in store
        assert store.read(digest).dtype == torch.float32
        assert (store.read(digest) - features).abs().max() <= tolerance
    some = [_picture(number)[0] for number in (7, 0, 7, 9)]
    assert torch.equal(store.read_batch(some), torch.stack([store.read(digest) for digest in some]))


def test_every_shard_is_a_file_that_the_library_reads(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, dtype="float32", pictures_per_shard=4)
    store.write(_pictures(*range(6)), num_pictures=6)
    names = sorted(path.name for path in store.directory.iterdir())
    assert names == ["key.json", "run.lock", "shard-00000.safetensors", "shard-00001.safetensors"]
    first = safetensors.torch.load_file(store.directory / "shard-00000.safetensors")["features"]
    assert torch.equal(first, torch.stack([features for _, features in _pictures(0, 1, 2, 3)]))
    assert json.loads((store.directory / "key.json").read_text()) == KEY | {"dtype": "float32"}


def test_the_estimate_covers_the_files(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, dtype="float16", pictures_per_shard=64)
    report = store.write(_pictures(*range(200)), num_pictures=200)
    estimate = store_bytes(num_pictures=200, num_patches=4, dim=6, dtype="float16")
    assert report.bytes == sum(path.stat().st_size for path in store.directory.glob("shard-*"))
    assert report.bytes <= estimate <= 1.5 * report.bytes


def test_an_interrupted_write_resumes_from_whole_shards(tmp_path: Path) -> None:
    encoded = []

    def stops() -> Iterator[tuple[str, torch.Tensor]]:
        for number in range(10):
            if number == 6:
                raise KeyboardInterrupt
            encoded.append(number)
            yield _picture(number)

    store = FeatureStore(tmp_path, KEY, dtype="float32", pictures_per_shard=4)
    with pytest.raises(KeyboardInterrupt):
        store.write(stops(), num_pictures=10)
    again = FeatureStore(tmp_path, KEY, dtype="float32", pictures_per_shard=4)
    digests = {_picture(number)[0]: number for number in range(10)}
    missing = again.missing(digests)
    assert [digests[digest] for digest in missing] == [4, 5, 6, 7, 8, 9]
    again.write(_pictures(*range(10)), num_pictures=10)
    assert again.missing(digests) == []
    for digest, number in digests.items():
        assert torch.equal(again.read(digest), _picture(number)[1])


def test_pictures_are_stored_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, pictures_per_shard=4)
    assert store.write(_pictures(1, 2, 1), num_pictures=3).skipped == 1
    assert store.write(_pictures(2, 3), num_pictures=2).written == 1
    assert len(store) == 3


def test_another_key_is_another_store(tmp_path: Path) -> None:
    FeatureStore(tmp_path, KEY).write(_pictures(1), num_pictures=1)
    assert len(FeatureStore(tmp_path, KEY | {"layer": 4})) == 0
    assert len(FeatureStore(tmp_path, KEY, dtype="float32")) == 0
    assert key_hash(KEY) == key_hash(dict(reversed(KEY.items())))


def test_a_damaged_shard_counts_as_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FeatureStore(tmp_path, KEY, dtype="float32", pictures_per_shard=2)
    store.write(_pictures(0, 1, 2, 3), num_pictures=4)
    path = store.directory / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        again = FeatureStore(tmp_path, KEY, dtype="float32", pictures_per_shard=2)
    assert "shard-00000" in caplog.text
    assert len(again) == 2
    again.write(_pictures(0, 1), num_pictures=2)
    assert torch.equal(again.read(_picture(1)[0]), _picture(1)[1])
    assert len(list(again.directory.glob("shard-*"))) == 3


def test_wrong_use_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="trains the part 'vision'"):
        FeatureStore(tmp_path, KEY, vision_is_trained=True)
    store = FeatureStore(tmp_path, KEY, dtype="float16")
    with pytest.raises(DataError, match="holds nothing for the picture"):
        store.read("0" * 64)
    with pytest.raises(DataError, match="up to 1e\\+06 that float16 cannot hold"):
        store.write([("a", torch.full((4, 6), 1e6))], num_pictures=1)
    with pytest.raises(DataError, match=r"shape \(5, 6\), others in .* have \(4, 6\)"):
        store.write([("a", torch.zeros(4, 6)), ("b", torch.zeros(5, 6))], num_pictures=2)
    with pytest.raises(
        MachineError, match=r"features of 1,000,000 pictures \(4 x 6 float16 each\) needs [\d,]+ bytes"
    ):
        store.write(_pictures(1), num_pictures=1_000_000, free=lambda _: 1_000_000)
    with DirectoryLock(store.directory), pytest.raises(CheckpointError, match="in use"):
        store.write(_pictures(1), num_pictures=1)
    assert len(store) == 0


def test_reading_cannot_change_the_file(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, dtype="float32")
    store.write(_pictures(0), num_pictures=1)
    digest, features = _picture(0)
    store.read(digest).zero_()
    store.read_batch([digest]).zero_()
    assert torch.equal(store.read(digest), features)
    assert torch.equal(FeatureStore(tmp_path, KEY, dtype="float32").read(digest), features)


def test_threads_read_the_same(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, KEY, dtype="float32", pictures_per_shard=16)
    store.write(_pictures(*range(64)), num_pictures=64)
    wrong = []

    def read(first: int) -> None:
        for number in range(64):
            digest, features = _picture((number * 7 + first) % 64)
            if not torch.equal(store.read(digest), features):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
