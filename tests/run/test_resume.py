"""`--resume`: bit for bit from every kind of stop, and refused where it does not fit."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small

import isthmus.run.train as running
from isthmus.config import yaml
from isthmus.config.recipe import Recipe


def _finish(recipe: Path, run: Path) -> str:
    outcome = small.isthmus("train", recipe, "--out", run, "--resume", "--json")
    assert [stage["steps"] for stage in outcome.json["stages"]] == [4, 4]
    return small.final_hash(run)


@pytest.mark.parametrize(
    ("stage", "step", "kind"),
    [
        ("align", 1, "train"),
        ("align", 2, "validation"),
        ("align", 4, "train"),
        ("instruct", 1, "train"),
        ("instruct", 3, "train"),
        ("instruct", 4, "validation"),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(
    runs: small.Runs,
    recipes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    step: int,
    kind: str,
) -> None:
    with monkeypatch.context() as patched:
        small.Killer(stage, step, kind=kind).install(patched)
        assert small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "run").code == 130
    assert not (tmp_path / "run" / "final").exists()
    assert _finish(recipes / "own.yaml", tmp_path / "run") == small.final_hash(runs["own"][0])
    for name in ("align", "instruct"):
        ours, theirs = (
            [
                line.partition('"seconds"')[0]
                for line in (run / name / "metrics.jsonl").read_text().splitlines()
            ]
            for run in (tmp_path / "run", runs["own"][0])
        )
        assert ours == theirs


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stage", ["align", "instruct"])
def test_a_signal_saves_says_so_and_the_run_goes_on_bit_for_bit(
    runs: small.Runs,
    recipes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    stage: str,
) -> None:
    with monkeypatch.context() as patched:
        small.Killer(stage, 2, act=lambda: os.kill(os.getpid(), number)).install(patched)
        stopped = small.isthmus("train", recipes / "lora.yaml", "--out", tmp_path / "run")
    assert stopped.code == code
    assert "--resume" in stopped.sentence
    assert signal.Signals(number).name in stopped.sentence
    assert (tmp_path / "run" / stage / "checkpoints" / "step-2").is_dir()
    assert _finish(recipes / "lora.yaml", tmp_path / "run") == small.final_hash(runs["lora"][0])


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("replace_json", 1),
        ("replace_json", 2),
        ("replace_json", 4),
        ("save_weights", 1),
        ("save_weights", 3),
        ("sync", 1),
        ("write_run_report", 1),
    ],
)
def test_a_kill_between_the_stages_loses_nothing(
    runs: small.Runs,
    recipes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
) -> None:
    real: Callable[..., object] = getattr(running, place)
    calls = iter(range(100))

    def dying(*given: object, **named: object) -> object:
        if next(calls) + 1 == call:
            raise KeyboardInterrupt
        return real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(running, place, dying)
        assert small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "run").code == 130
    assert _finish(recipes / "own.yaml", tmp_path / "run") == small.final_hash(runs["own"][0])


@pytest.mark.parametrize("place", ["environment", "recipe_hash", "resolved_yaml"])
def test_a_kill_while_the_directory_is_begun_loses_nothing(
    runs: small.Runs, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def dying(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"isthmus.run.directory.{place}", dying)
        assert small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "run").code == 130
    assert _finish(recipes / "own.yaml", tmp_path / "run") == small.final_hash(runs["own"][0])


def test_resuming_a_finished_run_changes_nothing(runs: small.Runs, recipes: Path) -> None:
    run, first = runs["own"]
    before = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    metrics = (run / "align" / "metrics.jsonl").read_text()
    again = small.isthmus("train", recipes / "own.yaml", "--out", run, "--resume", "--json")
    assert again.json == first.json
    assert {path: path.read_bytes() for path in run.rglob("*.safetensors")} == before
    assert (run / "align" / "metrics.jsonl").read_text() == metrics


def test_another_recipe_is_refused_and_the_difference_named(runs: small.Runs, recipes: Path) -> None:
    run, _ = runs["own"]
    changes = ("stages.align.optimizer.lr=5e-3", "stages.instruct.batch_size=4")
    refused = small.isthmus("train", recipes / "own.yaml", *changes, "--out", run, "--resume")
    assert refused.code == 4
    for word in ("stages.0.optimizer.lr", "0.005", "0.01", "stages.1.batch_size", "another recipe"):
        assert word in refused.sentence
    small.isthmus("ask", run, "x.png")
    assert small.final_hash(run)


def test_a_second_run_into_one_directory_is_refused(runs: small.Runs, recipes: Path) -> None:
    run, _ = runs["own"]
    before = small.final_hash(run)
    refused = small.isthmus("train", recipes / "own.yaml", "--out", run)
    assert refused.code == 4
    assert "--resume" in refused.sentence
    assert "--out" in refused.sentence
    assert small.final_hash(run) == before


def _as_before_a_key_existed(recipe: Recipe) -> dict[str, Any]:
    plain = recipe.model_dump(mode="json")
    for stage in plain["stages"]:
        del stage["group_by_modality"]
    return plain


def test_a_run_from_before_a_key_existed_goes_on_bit_for_bit(
    runs: small.Runs, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older_hash(recipe: Recipe) -> str:
        text = json.dumps(_as_before_a_key_existed(recipe), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    with monkeypatch.context() as patched:
        patched.setattr(
            "isthmus.run.directory.resolved_yaml", lambda recipe: yaml.dump(_as_before_a_key_existed(recipe))
        )
        patched.setattr("isthmus.run.directory.recipe_hash", older_hash)
        small.Killer("instruct", 2).install(patched)
        assert small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "run").code == 130
    assert "group_by_modality" not in (tmp_path / "run" / "recipe.yaml").read_text()
    assert _finish(recipes / "own.yaml", tmp_path / "run") == small.final_hash(runs["own"][0])
    assert small.isthmus("ask", tmp_path / "run", small.picture(tmp_path / "a.png"), "what ?").code == 0


def test_a_recipe_changed_by_hand_is_refused(recipes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert small.isthmus("train", recipes / "alone.yaml", "--out", run).code == 0
    kept = run / "recipe.yaml"
    kept.write_text(kept.read_text().replace("seed: 0", "seed: 1"))
    refused = small.isthmus("train", recipes / "alone.yaml", "--out", run, "--resume")
    assert refused.code == 4
    assert "changed" in refused.sentence


def test_resuming_where_nothing_is_says_that_a_new_run_begins(
    recipes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = tmp_path / "run"
    _finish(recipes / "own.yaml", run)
    assert f"{run} holds no run to go on with; a new one begins" in caplog.text
    caplog.clear()
    _finish(recipes / "own.yaml", run)
    assert "a new one begins" not in caplog.text
