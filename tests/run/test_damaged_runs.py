"""Runs whose files were damaged: each command names the file in one sentence and ends with 4, or does without it."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import small

Damage = Callable[[Path], object]
NOT_UTF_8 = b"\xff\xfe{"


def _copy(runs: small.Runs, place: Path, damage: Damage) -> Path:
    shutil.copytree(runs["own"][0], place)
    damage(place)
    return place


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "final" / "tokenizer.json").write_text("{}"), "tokenizer of '"),
        (lambda run: (run / "final" / "tokenizer.json").write_text("{"), "tokenizer of '"),
        (lambda run: (run / "final" / "tokenizer_config.json").write_text("[]"), "tokenizer of '"),
        (lambda run: (run / "final" / "model.safetensors").unlink(), "final first"),
        (
            lambda run: shutil.copy(
                run.parent / "dual" / "final" / "model.safetensors", run / "final" / "model.safetensors"
            ),
            "holds the parts image_head, scale, text, which the model lacks",
        ),
        (lambda run: (run / "recipe.sha256").write_bytes(NOT_UTF_8), "was changed after the run was made"),
    ],
)
def test_a_damaged_run_cannot_be_asked(runs: small.Runs, tmp_path: Path, damage: Damage, says: str) -> None:
    shutil.copytree(runs["dual"][0], tmp_path / "dual")
    run = _copy(runs, tmp_path / "run", damage)
    refused = small.isthmus("ask", run, small.picture(tmp_path / "a.png"), "what ?")
    assert (refused.code, says in refused.sentence) == (4, True), refused.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *itertools.product(["results.json", "environment.json", "align/data.json"], [b"{", NOT_UTF_8, b"[]"]),
        ("results.json", b'{"evaluation": 3}'),
        ("results.json", b'{"evaluation": {"test": {}}}'),
        ("results.json", b'{"evaluation": {"test": []}}'),
        ("results.json", b'{"other_tasks": []}'),
        ("results.json", b'{"other_tasks": {"test": []}}'),
        ("results.json", b'{"other_tasks": {"test": {"captioning": 3}}}'),
    ],
)
def test_a_damaged_record_is_named_before_it_is_read(
    runs: small.Runs, tmp_path: Path, name: str, content: bytes
) -> None:
    run = _copy(runs, tmp_path / "run", lambda run: (run / name).write_bytes(content))
    refused = small.isthmus("evaluate", run, "--limit", "4")
    assert refused.code == 4
    assert str(run / name) in refused.sentence


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"steps": 3}'])
def test_a_damaged_result_of_a_stage_is_no_result(
    runs: small.Runs, recipes: Path, tmp_path: Path, content: bytes
) -> None:
    run = _copy(runs, tmp_path / "run", lambda run: (run / "align" / "result.json").write_bytes(content))
    refused = small.isthmus("train", recipes / "own.yaml", "--resume", "--out", run)
    assert refused.code == 4
    assert "align/result.json" in refused.sentence
    (run / "align" / "result.json").unlink()
    assert small.isthmus("train", recipes / "own.yaml", "--resume", "--out", run).code == 0
    assert small.final_hash(run) == small.final_hash(runs["own"][0])


def test_a_log_that_is_no_text_is_counted_and_left_out(runs: small.Runs, tmp_path: Path) -> None:
    run = _copy(
        runs, tmp_path / "run", lambda run: (run / "align" / "metrics.jsonl").write_bytes(b"\xff\n[]\n")
    )
    assert small.isthmus("evaluate", run, "--limit", "4").code == 0
    assert "Damaged lines of align/metrics.jsonl that are left out: 2." in (run / "report.html").read_text()


def test_a_damaged_tokenizer_is_named_by_show_and_train(
    runs: small.Runs, recipes: Path, tmp_path: Path
) -> None:
    run = _copy(runs, tmp_path / "run", lambda run: (run / "tokenizer" / "tokenizer.json").write_text("{}"))
    for command in (("show", run), ("train", recipes / "own.yaml", "--resume", "--out", run)):
        refused = small.isthmus(*command)
        assert (refused.code, "tokenizer' cannot be read" in refused.sentence) == (4, True), refused.err


def test_an_empty_name_is_no_data(runs: small.Runs) -> None:
    refused = small.isthmus("evaluate", runs["own"][0], "--data", "")
    assert (refused.code, "--data '' is neither" in refused.sentence) == (2, True)
