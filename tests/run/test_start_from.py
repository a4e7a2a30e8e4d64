"""Where a stage starts: an earlier stage, whatever came between, or another run."""

from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file

OTHER_BRANCH = small.vision_language(
    stages=small.stage("read", "language", "text")
    + small.stage("align", "connector", "captions")
    + small.stage("again", "language", "text", start_from="read")
)


def _weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run / stage / "model.safetensors")


def test_a_stage_that_starts_from_an_earlier_one_has_nothing_of_those_between(
    tmp_path: Path,
) -> None:
    recipe = small.written(tmp_path / "recipe.yaml", OTHER_BRANCH)
    assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 0
    assert set(_weights(tmp_path / "run", "align")) > set(_weights(tmp_path / "run", "read"))
    assert set(_weights(tmp_path / "run", "again")) == set(_weights(tmp_path / "run", "read"))
    assert small.isthmus("ask", tmp_path / "run", small.picture(tmp_path / "a.png")).code == 0


def test_a_run_with_branches_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small.written(tmp_path / "recipe.yaml", OTHER_BRANCH)
    assert small.isthmus("train", recipe, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patched:
        small.Killer("again", 2).install(patched)
        assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 130
    assert small.isthmus("train", recipe, "--out", tmp_path / "run", "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(tmp_path / "whole")


def _from(run: Path, **changes: str) -> str:
    stages = small.stage("align", "connector", "captions", start_from=f"'{run}'")
    return small.vision_language(stages=stages, **changes)


def test_a_language_model_that_read_alone_is_carried_over_by_name(runs: small.Runs, tmp_path: Path) -> None:
    before, _ = runs["alone"]
    recipe = small.written(tmp_path / "recipe.yaml", _from(before))
    assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 0
    there, here = load_file(before / "final" / "model.safetensors"), _weights(tmp_path / "run", "final")
    assert there
    assert all(torch.equal(here[name], tensor) for name, tensor in there.items())
    assert any(name.startswith("connector") for name in here)
    assert small.isthmus("ask", tmp_path / "run", small.picture(tmp_path / "a.png")).code == 0


def test_another_tokenizer_is_refused(runs: small.Runs, tmp_path: Path) -> None:
    text = _from(runs["alone"][0], language=small.OWN.replace("word", "bpe").replace("200", "300"))
    refused = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert refused.code == 4
    assert "tokenizer" in refused.sentence


def test_a_part_that_this_model_lacks_is_refused(runs: small.Runs, tmp_path: Path) -> None:
    text = _from(runs["dual"][0])
    refused = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert refused.code == 4
    assert "image_head" in refused.sentence


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    recipe = small.written(tmp_path / "recipe.yaml", _from(tmp_path / "nothing"))
    refused = small.isthmus("train", recipe, "--out", tmp_path / "run")
    assert refused.code == 4
    assert "final" in refused.sentence


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_run_that_is_not_there_is_missed_before_anything_learns(
    recipes: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    start, out = f"stages.1.start_from={tmp_path / 'nowhere'}", tmp_path / "run"
    refused = small.isthmus("train", recipes / "own.yaml", start, "--out", out, *more)
    assert refused.code == 4
    assert "stage instruct starts from" in refused.sentence
    assert "which holds no finished run" in refused.sentence
    assert not out.exists()
