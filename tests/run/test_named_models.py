"""Several models in one recipe: a dual encoder learns to see, a vision-language model takes its vision encoder over."""

import json
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file

import isthmus
from isthmus.core.errors import RecipeError, UsageError

MODELS = (
    "models:\n  pairs:\n    kind: dual_encoder\n"
    f"    vision: {small.VISION}\n    image_head: {{pooling: mean}}\n"
    "    text: {kind: transformer, tokenizer: {kind: trained, data: train, algorithm: word, vocabulary: 73},\n"
    "      width: 16, layers: 1, heads: 2, context: 32}\n    embed_dim: 8\n"
    f"  answers:\n    kind: vision_language_model\n    vision: {small.VISION}\n"
    f"    connector: {{kind: mlp, depth: 2}}\n    language: {small.OWN}\n"
)
CONTRAST = small.stage(
    "contrast", "vision, image_head, text, scale", "captions", objective="{contrastive: 1.0}", model="pairs"
)


def _recipe(
    *, stages: str = "", top: str = "", drop: str = "[image_head, text, scale]", **changes: str
) -> str:
    taken = {"model": "answers", "start_from": "contrast", "drop": drop} | changes
    stages = stages or CONTRAST + small.stage(
        "align", "connector, language", "captions", **taken
    ) + small.stage("instruct", "connector", "questions", model="answers")
    return f"name: two\nseed: 3\n{small.DATA}{top}{MODELS}stages:\n{stages}{small.QUESTIONS}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    made = small.isthmus("train", small.written(folder / "recipe.yaml", _recipe()), "--out", folder / "run")
    assert made.code == 0, made.err
    return folder / "run"


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_vision_encoder_is_taken_over_and_the_rest_is_dropped(run: Path) -> None:
    learnt, final = _tensors(run / "contrast"), _tensors(run / "final")
    seen = {name for name in learnt if name.startswith("vision.")}
    assert seen
    assert all(torch.equal(final[name], learnt[name]) for name in seen)
    assert {name.split(".")[0] for name in final} == {"vision", "connector", "language"}
    answered = small.isthmus("ask", run, small.picture(run / "a.png"), "what is it ?", "--json").json
    assert isinstance(answered["answer"], str)
    assert small.isthmus("evaluate", run, "--json").json["n"] == 24
    assert "pairs: vision" in (run / "report.html").read_text(encoding="utf-8")


def test_each_model_can_be_opened_with_its_own_tokenizer(run: Path) -> None:
    answers, pairs = isthmus.load(run), isthmus.load(run, model="pairs")
    assert pairs.workshop.recipe.final_model.kind == "dual_encoder"
    assert answers.workshop.recipe.final_model.kind == "vision_language_model"
    assert len(pairs.workshop.tokenizer) != len(answers.workshop.tokenizer)
    stored = _tensors(run / "contrast")
    held = pairs.workshop.model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in stored.items())
    with pytest.raises(UsageError, match=r"no model named 'filter'.*pairs, answers"):
        isthmus.load(run, model="filter")


def test_show_counts_each_model(run: Path, tmp_path: Path) -> None:
    for target in (run, small.written(tmp_path / "recipe.yaml", _recipe())):
        said = small.isthmus("show", target, "--json").json
        assert said["final"] == "answers"
        assert [stage["model"] for stage in said["stages"]] == ["pairs", "answers", "answers"]
        models = said["models"]
        assert {part["name"] for part in models["pairs"]["parts"]} == {
            "vision",
            "image_head",
            "text",
            "scale",
        }
        assert said["total"] == models["answers"]["total"] != models["pairs"]["total"]
        assert said["parts"] == models["answers"]["parts"]
    printed = small.isthmus("show", run).out
    assert "model pairs\n" in printed
    assert "model answers, which the run hands on\n" in printed


def test_another_model_can_be_handed_on(tmp_path: Path) -> None:
    text = _recipe(top="final: pairs\n").replace(
        small.QUESTIONS, "evaluation: {task: retrieval, val: val, test: test}\n"
    )
    made = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert made.code == 0, made.err
    final, learnt = (_tensors(tmp_path / "run" / one) for one in ("final", "contrast"))
    assert final.keys() == learnt.keys()
    assert all(torch.equal(final[name], tensor) for name, tensor in learnt.items())
    assert small.isthmus("evaluate", tmp_path / "run", "--json").json["n"] == 24


@pytest.mark.parametrize(("stage", "step"), [("contrast", 2), ("align", 3), ("instruct", 1)])
def test_it_resumes_bit_for_bit_in_either_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    recipe = small.written(tmp_path / "recipe.yaml", _recipe())
    with monkeypatch.context() as patched:
        small.Killer(stage, step).install(patched)
        assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 130
    assert small.isthmus("train", recipe, "--out", tmp_path / "run", "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(run)


def test_a_dry_run_looks_at_every_model(tmp_path: Path) -> None:
    said = small.isthmus("train", small.written(tmp_path / "r.yaml", _recipe()), "--dry-run", "--json").json
    assert [stage["name"] for stage in said["stages"]] == ["contrast", "align", "instruct"]


def test_a_stage_of_another_model_begins_afresh_unless_it_says_otherwise(tmp_path: Path) -> None:
    stages = CONTRAST + small.stage("align", "connector", "captions", model="answers")
    recipe = small.written(tmp_path / "r.yaml", _recipe(stages=stages))
    assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 0
    assert {name.split(".")[0] for name in _tensors(tmp_path / "run" / "align")} == {"connector"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_recipe(drop="[image_head, text]"), "hands on the part scale"),
        (_recipe(model="answer"), "found 'answer'.*did you mean 'answers'"),
        (_recipe(model="null"), "found null.*pairs, answers"),
        (_recipe(top="final: both\n"), "final: found 'both'"),
        (_recipe(stages=CONTRAST), "answers.*which no stage trains"),
        (_recipe(top=f"model:\n  kind: language_model\n  language: {small.OWN}\n"), "both model and models"),
        (_recipe().replace(MODELS, ""), "neither model nor models"),
        (small.DUAL.replace("rows: captions", "rows: captions, model: pairs"), "this recipe has one model"),
        (small.DUAL.replace("rows: captions", "rows: captions, drop: [text]"), "starts from no other"),
    ],
)
def test_mistakes_in_names_are_explained(tmp_path: Path, text: str, said: str) -> None:
    refused = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--dry-run")
    assert refused.code == RecipeError.exit_code
    assert "Traceback" not in refused.err
    assert _matches(said, refused.err), refused.err


def _matches(said: str, text: str) -> bool:
    place = 0
    for piece in said.split(".*"):
        place = text.find(piece, place)
        if place < 0:
            return False
    return True


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": "[image_head, text, scale, vision.nose]"}, "'vision.nose' under drop fits no tensor"),
        ({"fresh": "[vision.nose]"}, "'vision.nose' under fresh fits no tensor"),
        ({"drop": "[image_head, text, scale, vision.norm]"}, "vision.norm"),
    ],
)
def test_what_does_not_fit_tensor_by_tensor_is_a_checkpoint_error(
    run: Path, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    del run
    refused = small.isthmus(
        "train", small.written(tmp_path / "r.yaml", _recipe(**changes)), "--out", tmp_path / "run"
    )
    assert refused.code == 4
    assert said in refused.sentence


def test_dropped_and_fresh_names_meet_tensor_by_tensor(run: Path, tmp_path: Path) -> None:
    changes = {"drop": "[image_head, text, scale, vision.norm]", "fresh": "[vision.norm]"}
    made = small.isthmus(
        "train", small.written(tmp_path / "r.yaml", _recipe(**changes)), "--out", tmp_path / "run"
    )
    assert made.code == 0, made.err
    learnt, final = _tensors(run / "contrast"), _tensors(tmp_path / "run" / "align")
    fresh = [name for name in learnt if name.startswith("vision.norm.")]
    assert fresh
    assert not any(torch.equal(final[name], learnt[name]) for name in fresh)
    assert torch.equal(final[fresh[0]], torch.ones_like(final[fresh[0]]))
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [stage["name"] for stage in results["stages"]] == ["contrast", "align", "instruct"]
