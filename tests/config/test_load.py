"""Recipes from text: what is read, what is changed, what is written back."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from recipes import GOOD, spoiled

from isthmus.config import load
from isthmus.config.load import load_recipe, parse_recipe, recipe_hash, resolved_yaml
from isthmus.config.paths import data_path, expand
from isthmus.config.recipe import Recipe
from isthmus.core.errors import DataError, RecipeError


def test_a_recipe_is_read_with_its_defaults() -> None:
    recipe = parse_recipe(GOOD, "good.yaml")
    assert recipe.model.kind == "vision_language_model"
    assert recipe.stages[0].optimizer.lr == 0.001
    assert recipe.stages[0].optimizer.betas == (0.9, 0.999)
    assert recipe.stages[1].optimizer.lr_by_part == {"connector": 1e-4}
    assert recipe.stages[1].train == ("connector", "language")
    assert recipe.evaluation is not None
    assert recipe.evaluation.decoding.method == "greedy"


def test_a_recipe_does_not_change() -> None:
    recipe = parse_recipe(GOOD, "good.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_the_resolved_text_gives_the_same_recipe() -> None:
    recipe = parse_recipe(GOOD, "good.yaml")
    text = resolved_yaml(recipe)
    assert parse_recipe(text, "resolved.yaml") == recipe
    assert "warmup_fraction: 0.03" in text
    assert text.splitlines()[0] == "name: photo-caption"


def test_the_hash_is_that_of_the_canonical_json() -> None:
    recipe = parse_recipe(GOOD, "good.yaml")
    plain = json.loads(recipe.model_dump_json())
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert recipe_hash(recipe) == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_follows_values_and_not_their_order_or_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe_hash(parse_recipe(GOOD, "good.yaml"))
    moved = spoiled(("name: photo-caption\n", ""), ("paper:", "name: photo-caption\npaper:"))
    monkeypatch.setenv("ISTHMUS_SHARED", "/elsewhere")
    assert recipe_hash(parse_recipe(moved, "moved.yaml")) == before
    assert recipe_hash(parse_recipe(GOOD, "good.yaml", ["seed=1"])) != before


def test_the_shared_folder_is_a_variable_until_a_path_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_SHARED", "/elsewhere/")
    source = parse_recipe(GOOD, "good.yaml").data["train"]
    assert source.kind == "shards"
    assert source.files == "${shared}/train-*.tar"
    assert expand(source.files) == "/elsewhere/train-*.tar"
    monkeypatch.delenv("ISTHMUS_SHARED")
    assert expand(source.files) == "../shared/train-*.tar"


def test_data_in_a_shared_folder_that_is_not_there_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISTHMUS_SHARED", raising=False)
    with pytest.raises(DataError, match=r"ISTHMUS_SHARED, .* is not set \(default \.\./shared\)"):
        data_path("${shared}/data/train-*.tar")
    monkeypatch.setenv("ISTHMUS_SHARED", "nowhere")
    with pytest.raises(DataError, match=r"ISTHMUS_SHARED, .* is nowhere, and that is no folder"):
        data_path("${shared}/data/train-*.tar")
    assert data_path("photos/train-*.tar") == "photos/train-*.tar"


def test_another_variable_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"\$\{HOME\}.*only \$\{shared\}"):
        expand("${HOME}/data")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("stages.0.optimizer.lr=1e-4", lambda r: r.stages[0].optimizer.lr == 1e-4),
        ("stages.together.optimizer.lr=1e-4", lambda r: r.stages[1].optimizer.lr == 1e-4),
        (
            "stages.align.train=[connector, language]",
            lambda r: r.stages[0].train == ("connector", "language"),
        ),
        ("features=null", lambda r: r.features is None),
        ("evaluation.decoding.method=beam", lambda r: r.evaluation.decoding.method == "beam"),
        ("stages.0.validation=", lambda r: r.stages[0].validation is None),
        ("stages.align.steps=10", lambda r: (r.stages[0].steps, r.stages[0].epochs) == (10, None)),
        ("stages.together.epochs=3", lambda r: (r.stages[1].steps, r.stages[1].epochs) == (None, 3)),
    ],
)
def test_overrides_change_values_by_number_or_stage_name(override: str, read: object) -> None:
    assert callable(read)
    assert read(parse_recipe(GOOD, "good.yaml", [override]))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stages.0.optimizer.lr", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("stages.aling.steps=3", "names 'aling' in stages; allowed: 0, 1, align, together"),
        ("stages.7.steps=3", "allowed: 0, 1, align, together"),
        ("seed.more=3", "has no keys"),
        ("name.more=3", "'name' is 'photo-caption', which has no keys"),
        ("seed=[1", "not YAML"),
        (
            "stages.0.epochs=0",
            "override stages.0.epochs=0: stages.0.epochs: found 0, allowed: a number above 0",
        ),
    ],
)
def test_wrong_overrides_say_which_and_what_is_allowed(override: str, says: str) -> None:
    text = GOOD.replace("data:\n", "seed: 3\ndata:\n", 1)
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "good.yaml", [override])
    assert says in str(caught.value)


def test_steps_and_epochs_in_two_overrides_are_both_kept_and_refused() -> None:
    with pytest.raises(RecipeError, match="both epochs and steps"):
        parse_recipe(GOOD, "good.yaml", ["stages.0.steps=10", "stages.0.epochs=1"])


def test_yaml_is_1_2() -> None:
    assert load.yaml.parse("{a: on, b: 1e-4, c: yes, d: 012, e: null}", "x")[0] == {
        "a": "on", "b": 1e-4, "c": "yes", "d": 12, "e": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", 'line 2: found duplicate key "name"'),
        ("name: [a\n", "line 2: this is not YAML 1.2"),
        ("- a\n", "expected keys such as name"),
        ("", "expected keys such as name"),
        ("a: !!python/object/apply:os.system [ls]\n", "not YAML 1.2"),
        ("a: &a [*a]\n", "an alias contains itself"),
        ("name: " + "[" * 60 + "]" * 60, "nested deeper than 40"),
        ("name: x\n" + "#" * 1_000_001, "at most 1000000"),
        ("a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 8)}]\n" for i in range(8)
        ), "unfolds to more than 20000"),
    ],
)  # fmt: skip
def test_text_that_is_no_recipe_is_refused_at_once(text: str, says: str) -> None:
    start = time.perf_counter()
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "bad.yaml")
    assert says in str(caught.value)
    assert time.perf_counter() - start < 1


def test_a_recipe_is_found_by_path_or_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "llava.yaml").write_text(GOOD)
    (tmp_path / "demo.yaml").write_text(GOOD)
    monkeypatch.setattr(load, "SHIPPED", tmp_path)
    expected = parse_recipe(GOOD, "good.yaml")
    assert load_recipe("tiny/llava") == load_recipe("demo") == expected
    assert load_recipe(tmp_path / "demo.yaml") == load_recipe(str(tmp_path / "demo.yaml")) == expected
    with pytest.raises(
        RecipeError, match=r"no recipe 'tiny/lava' \(did you mean 'tiny/llava'\?\).*are tiny/llava$"
    ):
        load_recipe("tiny/lava")
    with pytest.raises(RecipeError, match=r"no recipe 'demmo.yaml' \(did you mean 'demo'"):
        load_recipe("demmo.yaml")


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"x\.yaml cannot be read"):
        load_recipe(tmp_path / "x.yaml")


def test_what_is_there_and_no_recipe_is_called_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(
        RecipeError, match=r"a\.png' is a file of another kind; .* ends with \.yaml or \.yml$"
    ):
        load_recipe(str(tmp_path / "a.png"))
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(RecipeError, match="' is a folder; "):
            load_recipe(folder)


@pytest.mark.parametrize("name", ["final", "tokenizer"])
def test_a_stage_cannot_take_another_folder_of_the_run(name: str) -> None:
    text = spoiled(("name: align", f"name: {name}"), ("start_from: align", f"start_from: {name}"))
    with pytest.raises(RecipeError, match=rf"stages\.0\.name: found '{name}', allowed: another name"):
        parse_recipe(text, "taken.yaml")


@pytest.mark.parametrize("name", load.shipped_names())
def test_every_shipped_recipe_is_right(name: str) -> None:
    assert isinstance(load_recipe(name), Recipe)


def test_refusing_a_recipe_takes_under_a_second_and_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(spoiled(("kind: mlp", "kind: mpl")))
    program = (
        "import sys, time; start = time.process_time()\n"
        "import isthmus\n"
        "from isthmus.core.errors import DataError, RecipeError\n"
        "try: isthmus.load_recipe(sys.argv[1])\n"
        "except RecipeError as error: print(error)\n"
        "heavy = {'torch', 'numpy', 'transformers', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert time.process_time() - start < 1, time.process_time() - start\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean 'mlp'" in done.stdout
