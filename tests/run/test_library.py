"""The Python example of the design: load a recipe, build a model, load a run, answer."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from PIL import ExifTags, Image

import isthmus
from isthmus.core.errors import DataError
from isthmus.data.sources.scenes import SceneSource
from isthmus.run.load import picture_of


@pytest.mark.parametrize("name", ["own", "lora", "dual", "alone"])
def test_a_recipe_becomes_a_model_on_the_meta_device(recipes: Path, name: str) -> None:
    recipe = isthmus.load_recipe(recipes / f"{name}.yaml")
    model = isthmus.build_model(recipe.model, weights="random", device="meta")
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
    shown = small.isthmus("show", str(recipes / f"{name}.yaml"), "--json").json
    assert shown["total"] == sum(tensor.numel() for tensor in model.parameters())


def test_building_is_repeatable_and_leaves_the_random_state_alone(recipes: Path) -> None:
    recipe = isthmus.load_recipe(recipes / "own.yaml")
    state = torch.random.get_rng_state()
    one, two = (isthmus.build_model(recipe.model, weights="random", seed=5) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    other = isthmus.build_model(recipe.model, weights="random", seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_run_answers_for_a_path_a_string_and_a_picture(runs: small.Runs, tmp_path: Path) -> None:
    run = isthmus.load(str(runs["own"][0]))
    path = small.picture(tmp_path / "a.png")
    picture = SceneSource(split="test", num_samples=1, image_size=32).sample(0).images[0].picture()
    answers = {run.answer(path, "what is red"), run.answer(str(path), "what is red")}
    assert answers == {run.answer(picture, "what is red")}
    assert answers == {small.isthmus("ask", runs["own"][0], path, "what is red", "--json").json["answer"]}
    assert isinstance(run.answer(path), str)
    with pytest.raises(DataError, match=r"nowhere\.png does not exist"):
        run.answer("nowhere.png")


def test_numbers_that_are_no_picture_are_refused_and_a_turned_picture_is_turned_back(
    runs: small.Runs, tmp_path: Path
) -> None:
    run = isthmus.load(str(runs["own"][0]))
    with pytest.raises(DataError, match=r"holds floating-point numbers; expected 8 or 16 bits a channel"):
        run.answer(Image.fromarray(np.full((32, 32), np.nan, dtype=np.float32)), "what is red")
    turned = Image.open(small.picture(tmp_path / "a.png"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    seen = picture_of(Image.open(tmp_path / "turned.jpg")).picture()
    assert seen.tobytes() == picture_of(tmp_path / "turned.jpg").picture().tobytes()
    assert seen.tobytes() != Image.open(tmp_path / "turned.jpg").tobytes()


def test_show_counts_the_same_for_a_run_as_its_model_has(runs: small.Runs) -> None:
    for name in ("own", "lora", "dual", "alone"):
        run, _ = runs[name]
        shown = small.isthmus("show", str(run), "--json").json
        model = isthmus.load(run).workshop.model
        assert shown["total"] == sum(tensor.numel() for tensor in model.parameters())
        assert {"parts", "total", "published_total", "stages", "visual_tokens"} <= set(shown)
        assert all(
            {"name", "kind", "parameters", "published_parameters"} <= set(row) for row in shown["parts"]
        )
        assert all({"name", "trainable", "frozen", "parts"} <= set(row) for row in shown["stages"])
        assert shown["visual_tokens"] == (16 if name in ("own", "lora") else None)
        for stage in shown["stages"]:
            assert stage["trainable"] + stage["frozen"] == shown["total"]


def test_show_counts_the_visual_tokens_of_another_size(recipes: Path) -> None:
    """Without tiles every picture is brought to the encoder's size; one that has to fit already may be refused."""
    target = str(recipes / "own.yaml")
    for written in ("64x32", "63x500"):
        assert small.isthmus("show", target, "--image-size", written, "--json").json["visual_tokens"] == 16
    fixed = "model.vision.resize=none"
    assert small.isthmus("show", target, fixed, "--image-size", "32", "--json").json["visual_tokens"] == 16
    refused = small.isthmus("show", target, fixed, "--image-size", "64x32")
    assert refused.code == 2
    assert "--image-size" in refused.sentence and "32x32 already" in refused.sentence


def test_show_counts_a_changed_recipe_and_changes_no_run(recipes: Path, runs: small.Runs) -> None:
    target = str(recipes / "own.yaml")
    counts = [
        small.isthmus("show", target, f"model.language.layers={layers}", "--json").json["total"]
        for layers in (1, 2, 3)
    ]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
    run, _ = runs["own"]
    refused = small.isthmus("show", str(run), "model.language.layers=1")
    assert refused.code == 2
    assert "model.language.layers=1" in refused.sentence and "recipe.yaml" in refused.sentence


def test_the_package_imports_without_torch_and_names_what_it_has() -> None:
    code = "import sys, isthmus; isthmus.load_recipe; assert 'torch' not in sys.modules; print(dir(isthmus))"
    source = Path(isthmus.__file__).parents[1]
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(source)},
    ).stdout
    assert all(name in said for name in ("load", "load_recipe", "build_model"))
    with pytest.raises(AttributeError, match="isthmus has no 'nothing'"):
        isthmus.nothing  # noqa: B018
