"""`isthmus train` from recipe to run directory: every kind of model, and what stands in the directory afterwards."""

import json
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from isthmus.build.workshop import open_workshop
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.run.directory import RunDirectory
from isthmus.run.load import load

KINDS = ("lora", "own", "captions", "dual", "alone")
LEARNT = {
    "lora": {"connector", "lora"},
    "own": {"connector", "language"},
    "captions": {"connector", "language"},
    "dual": {"vision", "image_head", "text", "scale"},
    "alone": {"language"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_directory_is_complete(runs: small.Runs, kind: str) -> None:
    run, outcome = runs[kind]
    said = outcome.json
    assert said["run"] == str(run)
    for stage in said["stages"]:
        assert {"name", "steps", "loss", "seconds", "trainable"} <= set(stage)
        assert stage["steps"] == 4
        assert stage["validation"]
        assert (run / stage["name"] / "checkpoints" / "step-4").is_dir()
        lines = (run / stage["name"] / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert [row["step"] for row in records if row["kind"] == "train"] == [1, 2, 3, 4]
        assert [row["step"] for row in records if row["kind"] == "validation"] == [2, 4]
        report = json.loads((run / stage["name"] / "data.json").read_text())
        assert report["rows"] == 32
        assert report["skipped"] == 0
    for name in ("recipe.yaml", "recipe.sha256", "environment.json", "results.json", "report.html"):
        assert (run / name).is_file()
    assert (run / "final" / "tokenizer.json").is_file()
    assert (run / "final" / "template.json").is_file() == (kind != "dual")
    assert json.loads((run / "results.json").read_text())["stages"] == said["stages"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_moves_and_what_is_frozen_stays(runs: small.Runs, kind: str) -> None:
    run, _ = runs[kind]
    recipe = RunDirectory(run).read_recipe()
    fresh = open_workshop(recipe, small.OPTIONS, tokenizer_folder=run / "final").model
    before = {name: tensor.clone() for name, tensor in fresh.named_parameters()}
    after = dict(load(run, small.OPTIONS).workshop.model.named_parameters())
    stored = load_file(run / "final" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    parts = fresh.parts()
    learning = {
        name
        for part in LEARNT[kind]
        for name, tensor in fresh.named_parameters()
        if any(tensor is own for own in parts[part].parameters())
    }
    if "lora" in parts:
        assert all("lora" in name or name.startswith("connector") for name in moved)
    assert moved == {name for name in stored if name in before}
    assert moved == learning


def test_an_exported_language_model_ends_in_transformers_where_its_tokenizer_says(runs: small.Runs) -> None:
    folder = runs["alone"][0] / "final" / "language"
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens([0, 2, 3]) == ["<pad>", "<s>", "</s>"]
    for settings in (network.config, network.generation_config):
        assert settings.pad_token_id == tokenizer.pad_token_id
        assert settings.bos_token_id == tokenizer.bos_token_id
        assert settings.eos_token_id == tokenizer.eos_token_id
    prompt = tokenizer(
        "a red circle", return_tensors="pt", add_special_tokens=False, return_token_type_ids=False
    )

    def one_more_word_then(end: int) -> int:
        """How many tokens are written if the second is `end` and all others are a word."""

        def scores(ids: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
            wanted = end if ids.shape[1] - prompt["input_ids"].shape[1] == 1 else 9
            return torch.full_like(given, -1e9).index_fill_(1, torch.tensor([wanted]), 0.0)

        written = network.generate(**prompt, logits_processor=LogitsProcessorList([scores]), max_new_tokens=6)
        return written.shape[1] - prompt["input_ids"].shape[1]

    assert one_more_word_then(tokenizer.eos_token_id) == 2
    assert one_more_word_then(tokenizer.bos_token_id) == 6


def test_the_shuffled_gap_is_measured_while_training(runs: small.Runs) -> None:
    validation = runs["own"][1].json["stages"][1]["validation"]
    assert "val.loss" in validation or any(name.startswith("val.") for name in validation)
    assert any("shuffled_gap" in name for name in validation)


def test_a_dry_run_builds_everything_and_writes_nothing(recipes: Path, tmp_path: Path) -> None:
    said = small.isthmus("train", recipes / "own.yaml", "--dry-run", "--json", "--out", tmp_path / "run").json
    assert said["run"] is None
    assert [stage["steps"] for stage in said["stages"]] == [4, 4]
    assert not (tmp_path / "run").exists()


def test_stdout_has_the_table_and_the_freezing_for_people(recipes: Path, tmp_path: Path) -> None:
    outcome = small.isthmus("train", recipes / "alone.yaml", "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "stage read trains language" in outcome.out
    assert f"run: {tmp_path / 'run'}" in outcome.out


def test_two_runs_of_a_recipe_are_equal_and_another_seed_is_not(
    runs: small.Runs, recipes: Path, tmp_path: Path
) -> None:
    again = small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "again")
    other = small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "other", "--seed", "4")
    assert (again.code, other.code) == (0, 0)
    assert small.final_hash(tmp_path / "again") == small.final_hash(runs["own"][0])
    assert small.final_hash(tmp_path / "other") != small.final_hash(runs["own"][0])


CONNECTORS = {
    "linear": "{kind: linear}",
    "mlp": "{kind: mlp, depth: 2, pool: 2, norm: true, positions: true, dropout: 0.1}",
    "perceiver_resampler": "{kind: perceiver_resampler, latents: 3, layers: 1, heads: 2, head_dim: 8, ffn_multiple: 2}",
    "pixel_shuffle": "{kind: pixel_shuffle, factor: 2}",
}
TOKENS = {"linear": 16, "mlp": 4, "perceiver_resampler": 3, "pixel_shuffle": 4}


@pytest.mark.parametrize("connector", CONNECTORS)
def test_every_connector_learns_and_answers(tmp_path: Path, connector: str) -> None:
    text = small.vision_language(stages=small.stage("align", "connector", "captions"))
    recipe = small.written(
        tmp_path / "recipe.yaml", text.replace("{kind: mlp, depth: 2}", CONNECTORS[connector])
    )
    assert small.isthmus("show", recipe, "--json").json["visual_tokens"] == TOKENS[connector]
    assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 0
    assert small.isthmus("ask", tmp_path / "run", small.picture(tmp_path / "a.png"), "what ?").code == 0


@pytest.mark.parametrize("placeholder", ["virtual", "add", "{reuse: 1}"])
@pytest.mark.parametrize("learns", ["connector", "connector, language"])
def test_every_placeholder_learns_and_answers(
    recipes: Path, tmp_path: Path, placeholder: str, learns: str
) -> None:
    text = (recipes / "lora.yaml").read_text().replace(", lora: {rank: 2, alpha: 4}", "")
    text = text.replace("connector, lora", learns)
    text = text.replace("  language:", f"  fusion: {{kind: splice, placeholder: {placeholder}}}\n  language:")
    recipe = small.written(tmp_path / "recipe.yaml", text)
    assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 0
    assert small.isthmus("ask", tmp_path / "run", small.picture(tmp_path / "a.png"), "what").code == 0
    model = load(tmp_path / "run", small.OPTIONS).workshop.model
    language = load_file(recipes / "language" / "model.safetensors")["model.embed_tokens.weight"]
    placed = {"virtual": len(language), "add": len(language), "{reuse: 1}": 1}
    assert isinstance(model, VisionLanguageModel)
    assert model.placeholder_id == placed[placeholder]


@pytest.mark.parametrize("taken", [0, 2, 3])
def test_a_placeholder_that_rows_need_otherwise_is_refused(recipes: Path, taken: int) -> None:
    change = f"model.fusion={{kind: splice, placeholder: {{reuse: {taken}}}}}"
    refused = small.isthmus("train", recipes / "lora.yaml", change, "--dry-run")
    assert refused.code == 2
    assert f"id {taken}" in refused.sentence
