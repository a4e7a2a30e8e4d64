"""The feature store in real runs: stored equals live, an interruption keeps what was stored, learning vision refuses it."""

import os
import signal
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file

import isthmus.build.features as features

STORED = "features: {store: true, dtype: float32}\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of this test's own."""
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def _recipe(tmp_path: Path, more: str = STORED, *, num: int = 60) -> Path:
    text = small.vision_language(more=more).replace("num_samples: 60", f"num_samples: {num}")
    return small.written(tmp_path / ("stored.yaml" if more else "live.yaml"), text)


def _weights(recipe: Path, run: Path) -> dict[str, torch.Tensor]:
    outcome = small.isthmus("train", recipe, "--out", run, "--precision", "fp32")
    assert outcome.code == 0, outcome.err
    return load_file(run / "final" / "model.safetensors")


def test_training_on_stored_features_equals_training_on_live_ones(tmp_path: Path, cache: Path) -> None:
    live = _weights(_recipe(tmp_path, ""), tmp_path / "live")
    assert not cache.exists()
    stored = _weights(_recipe(tmp_path), tmp_path / "stored")
    assert list(cache.rglob("shard-*.safetensors"))
    assert live.keys() == stored.keys()
    for name, tensor in live.items():
        torch.testing.assert_close(stored[name], tensor, rtol=0, atol=1e-5)


def test_the_store_is_written_once_and_used(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _weights(_recipe(tmp_path), tmp_path / "first")
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("shard-*.safetensors")}

    def drawn(*given: object) -> None:
        raise AssertionError("a picture was prepared although its features are stored")

    monkeypatch.setattr("isthmus.data.images.ImageProcessor.__call__", drawn)
    second = _weights(_recipe(tmp_path), tmp_path / "second")
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("shard-*.safetensors")} == files
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_a_stop_while_features_are_stored_keeps_them_and_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_PICTURES_A_SHARD", 16)
    whole = _weights(_recipe(tmp_path), tmp_path / "whole")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "other"))
    real = features._prepared
    calls = iter(range(100))

    def prepared(*given: object) -> object:
        if next(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(features, "_prepared", prepared)
        stopped = small.isthmus("train", _recipe(tmp_path), "--out", tmp_path / "run", "--precision", "fp32")
    assert stopped.code == 143
    assert "features" in stopped.sentence
    kept = list((tmp_path / "other").rglob("shard-*.safetensors"))
    assert kept
    again = small.isthmus(
        "train", _recipe(tmp_path), "--out", tmp_path / "run", "--precision", "fp32", "--resume"
    )
    assert again.code == 0
    assert set(kept) < set((tmp_path / "other").rglob("shard-*.safetensors"))
    assert small.final_hash(tmp_path / "run") == small.final_hash(tmp_path / "whole")
    assert whole


def test_a_store_is_refused_where_vision_learns(tmp_path: Path) -> None:
    learning = "stages.instruct.train=[vision, connector]"
    refused = small.isthmus("train", _recipe(tmp_path), learning, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "features" in refused.err
    assert "'vision'" in refused.err
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_is_counted_by_training_and_not_stored(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(16):
        file = small.picture(folder / f"{number:03d}.png", index=number)
        file.with_suffix(".txt").write_text("a red ring")
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    text = small.vision_language(
        more=STORED,
        stages=small.stage("align", "connector", "captions", data="mine"),
        data=f"{small.DATA}  mine: {{kind: folder, path: {folder}}}\n",
    )
    outcome = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert '"skipped": 1' in (tmp_path / "run" / "align" / "data.json").read_text()
