import errno
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from isthmus.core.errors import CheckpointError, MachineError
from isthmus.training.checkpoint import CheckpointIdentity, CheckpointStore
from isthmus.training.durability import write_tensors
from isthmus.training.lock import DirectoryLock

IDENTITY = CheckpointIdentity.here(recipe_hash="r" * 64, frozen_hash="f" * 64)


def _tensors(step: int) -> dict[str, torch.Tensor]:
    return {"model/w": torch.full((4, 3), float(step)), "optimizer/step/w": torch.tensor(float(step))}


def _store(path: Path, **options: object) -> CheckpointStore:
    return CheckpointStore(path, identity=IDENTITY, **options)


def _saved(path: Path, *steps: int) -> CheckpointStore:
    store = _store(path, keep=9)
    for step in steps:
        store.save(step, _tensors(step), {"seconds": 0.1 * step})
    return store


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {
        "model/a": shared,
        "model/b": shared,
        "average/t": shared.reshape(2, 3).T,
        "n": torch.tensor(3),
    }
    _store(tmp_path).save(7, tensors, {"seconds": 0.1, "window": {"losses": [1 / 3]}})
    loaded = _store(tmp_path).load_latest()
    assert loaded is not None
    assert loaded.step == 7
    assert loaded.state == {"seconds": 0.1, "window": {"losses": [1 / 3]}}
    assert loaded.refused == ()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())
    assert _store(tmp_path / "empty").load_latest() is None


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    store = _store(tmp_path, keep=2)
    for step in (1, 2, 9, 10):
        store.save(step, _tensors(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-9"]


def test_a_published_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    store = _saved(tmp_path, 5)
    before = (tmp_path / "step-5" / "tensors.safetensors").stat()
    store.save(5, _tensors(99), {})
    after = (tmp_path / "step-5" / "tensors.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def _truncate(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _flip(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _rewrite_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(path.read_text().replace("0.9", "0.8"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate, "tensors.safetensors has"),
        (_flip, "SHA-256 of tensors.safetensors"),
        (_rewrite_state, "SHA-256 of state.json"),
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, words: str
) -> None:
    store = _saved(tmp_path, 8, 9)
    damage(tmp_path / "step-9")
    with caplog.at_level(logging.WARNING):
        loaded = store.load_latest()
    assert loaded is not None
    assert loaded.step == 8
    assert words in loaded.refused[0]
    assert words in caplog.text
    store.save(9, _tensors(9), {})
    assert store.load_latest().step == 9


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    store = _saved(tmp_path, 8, 9)
    _flip(tmp_path / "step-8")
    _truncate(tmp_path / "step-9")
    with pytest.raises(CheckpointError, match=r"step-9: .*step-8: ") as caught:
        store.load_latest()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("field", "words"), [("recipe_hash", "another recipe"), ("frozen_hash", "another frozen base")]
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, field: str, words: str) -> None:
    _saved(tmp_path, 1)
    other = CheckpointStore(tmp_path, identity=replace(IDENTITY, **{field: "0" * 64}))
    with pytest.raises(CheckpointError, match=words):
        other.load_latest()


def test_another_number_of_threads_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _saved(tmp_path, 1)
    other = CheckpointStore(tmp_path, identity=replace(IDENTITY, num_threads=IDENTITY.num_threads + 1))
    with caplog.at_level(logging.WARNING):
        assert other.load_latest() is not None
    assert "number of threads" in caplog.text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_refuses_leaves_older_checkpoints_intact(tmp_path: Path, code: int) -> None:
    _saved(tmp_path, 1)

    def write_half(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        path.write_bytes(b"half")
        raise OSError(code, "the disk refuses")

    with pytest.raises(MachineError, match=r"needs 52 bytes and [\d,]+ bytes are free") as caught:
        _store(tmp_path, write=write_half).save(2, _tensors(2), {})
    assert caught.value.exit_code == 6
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert _store(tmp_path).load_latest().step == 1


def test_too_little_space_is_noticed_before_writing(tmp_path: Path) -> None:
    _saved(tmp_path, 1)
    with pytest.raises(MachineError, match="needs 65,588 bytes, but only 1,000 bytes are free"):
        _store(tmp_path, free=lambda _: 1000).save(2, _tensors(2), {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_limit_of_the_kernel_is_told_in_the_same_words(tmp_path: Path) -> None:
    """A real refusal while writing: the file-size limit of a process, in a process of its own."""
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from isthmus.core.errors import MachineError\n"
        "from isthmus.training.checkpoint import CheckpointIdentity, CheckpointStore\n"
        "identity = CheckpointIdentity.here(recipe_hash='r', frozen_hash='f')\n"
        "store = CheckpointStore(Path(sys.argv[1]), identity=identity)\n"
        "store.save(1, {'w': torch.zeros(8)}, {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    store.save(2, {'w': torch.zeros(100_000)}, {})\n"
        "except MachineError as error:\n"
        "    print(error)\n"
    )
    source = Path(__file__).parents[2] / "src"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "saving step 2 failed: File too large; it needs 400,000 bytes" in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_the_safetensors_library_reads_what_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "turned": torch.arange(6).reshape(2, 3).to(dtype).T,
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 4).to(dtype),
        "ünïcode": torch.ones(3).to(dtype),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"made": 'by "hand"'})
    loaded = safetensors.torch.load_file(tmp_path / "t.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)
    with safetensors.safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert file.metadata() == {"made": 'by "hand"'}


def test_what_a_killed_save_left_is_removed_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = _saved(tmp_path, 1)
    left = tmp_path / f"step-2.tmp-{'a' * 32}"
    left.mkdir()
    (left / "tensors.safetensors").write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert store.load_latest().step == 1
    assert left.name in caplog.text
    assert not left.exists()


def test_the_manifest_lists_sizes_and_hashes(tmp_path: Path) -> None:
    _saved(tmp_path, 1)
    manifest = json.loads((tmp_path / "step-1" / "manifest.json").read_text())
    size = (tmp_path / "step-1" / "tensors.safetensors").stat().st_size
    assert manifest["files"]["tensors.safetensors"]["bytes"] == size
    assert len(manifest["files"]["state.json"]["sha256"]) == 64


def test_a_directory_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with (
        DirectoryLock(tmp_path),
        pytest.raises(CheckpointError, match=r'is in use by \{"pid": \d+, "host": '),
        DirectoryLock(tmp_path),
    ):
        pass
    with DirectoryLock(tmp_path):
        pass


def test_a_lock_whose_holder_died_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text(json.dumps({"pid": 2**22 + 1, "host": "here"}))
    with DirectoryLock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "run.lock").read_text() == ""
