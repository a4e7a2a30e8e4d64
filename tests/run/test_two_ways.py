"""Whole runs whose text reads pictures: they train, hand on what they learnt, resume, answer, and are judged."""

from pathlib import Path

import pytest
import small
from safetensors.torch import load_file

BLOCKS = "kind: cross_attention, every: 1, heads: 2, head_dim: 8, ffn_multiple: 1"
RESAMPLER = "{kind: perceiver_resampler, latents: 4, layers: 1, heads: 2, head_dim: 8, ffn_multiple: 1}"
BOTH = f"""paths:
    mapper: {{connector: {{kind: mapping_mlp, prefix: 2, hidden: 8}}}}
    resampler: {{connector: {RESAMPLER}, fusion: {{{BLOCKS}}}}}"""
CASES = {
    "flamingo": (
        f"connector: {RESAMPLER}\n  fusion: {{{BLOCKS}}}",
        "flamingo",
        "connector, fusion, token_rows",
    ),
    "unmarked": (
        f"connector: {RESAMPLER}\n  fusion: {{{BLOCKS}, marker: none}}",
        "plain",
        "connector, fusion",
    ),
    "both": (BOTH, "plain", "mapper, resampler, fusion"),
}
LEARNT = {
    "flamingo": {"attention_connector", "fusion", "language"},
    "unmarked": {"attention_connector", "fusion"},
    "both": {"connector", "attention_connector", "fusion"},
}


def recipe(name: str, folder: Path, *, rows: str = "questions") -> Path:
    ways, template, parts = CASES[name]
    language = small.OWN.replace("context: 64", f"context: 64, template: {template}")
    text = small.vision_language(
        language, stages=small.stage("align", parts, "captions") + small.stage("instruct", parts, rows)
    )
    return small.written(folder / f"{name}.yaml", text.replace("connector: {kind: mlp, depth: 2}", ways))


@pytest.mark.parametrize("name", CASES)
def test_a_run_trains_answers_and_is_judged(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = small.isthmus("train", recipe(name, tmp_path), "--out", run, "--json").json
    assert [stage["steps"] for stage in said["stages"]] == [4, 4]
    held = load_file(run / "final" / "model.safetensors")
    assert {key.split(".")[0] for key in held} == LEARNT[name]
    if name == "flamingo":
        assert "language.rows.table" in held
        assert not any(key.startswith("language.network") for key in held)
    gates = [value for key, value in held.items() if key.endswith("gate")]
    assert len(gates) == 2
    assert all(bool(gate.any()) for gate in gates)
    scene = small.picture(tmp_path / "scene.png")
    answers = [small.isthmus("ask", run, scene, "what is red ?", "--json").json["answer"] for _ in range(2)]
    assert answers[0] == answers[1]
    assert small.isthmus("evaluate", run, "--limit", "6", "--json").json["n"] > 0
    shown = small.isthmus("show", run, "--json").json
    assert shown["stages"][1]["trainable"] == said["stages"][1]["trainable"]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe("flamingo", tmp_path, rows="conversations")
    small.isthmus("train", path, "--out", tmp_path / "whole")
    with monkeypatch.context() as patched:
        small.Killer("instruct", 2).install(patched)
        assert small.isthmus("train", path, "--out", tmp_path / "killed").code == 130
    assert small.isthmus("train", path, "--out", tmp_path / "killed", "--resume").code == 0
    assert small.final_hash(tmp_path / "killed") == small.final_hash(tmp_path / "whole")
