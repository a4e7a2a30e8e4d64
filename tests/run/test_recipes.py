"""Every recipe that comes with the package: it loads, its file introduces it, and `show` counts its parameters."""

import os
from pathlib import Path

import pytest
import small

from isthmus.config.load import (
    SHIPPED,
    load_recipe,
    parse_recipe,
    recipe_hash,
    resolved_yaml,
    shipped_names,
    written_hash,
)
from isthmus.config.paths import DEFAULT_SHARED, SHARED
from isthmus.config.stages import TrainStage

NAMES = shipped_names()


def test_there_are_recipes_for_real_photos() -> None:
    assert {"flickr8k/caption", "flickr8k/retrieval"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_its_resolved_form_is_equal(name: str) -> None:
    recipe = load_recipe(name)
    assert parse_recipe(resolved_yaml(recipe), name) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_of_its_resolved_file_is_its_hash(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert written_hash(small.written(tmp_path / "recipe.yaml", resolved_yaml(recipe))) == recipe_hash(recipe)


@pytest.mark.parametrize("name", NAMES)
def test_its_file_begins_with_what_it_is(name: str) -> None:
    text = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 30
    recipe = load_recipe(name)
    assert recipe.paper
    assert all(address.startswith("https://") for address in recipe.paper)


@pytest.mark.parametrize("name", NAMES)
def test_show_counts_its_parameters(name: str) -> None:
    shared = Path(os.environ.get(SHARED, DEFAULT_SHARED))
    if "${shared}" in (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8") and not shared.is_dir():
        pytest.skip(f"the checkpoints of {name} lie in {SHARED}, which is not on this machine")
    said = small.isthmus("show", name, "--json").json
    assert said["total"] == sum(row["parameters"] for row in said["parts"]) > 0
    assert [stage["name"] for stage in said["stages"]] == [stage.name for stage in load_recipe(name).stages]
    training = {stage.name for stage in load_recipe(name).stages if isinstance(stage, TrainStage)}
    assert all((stage["trainable"] > 0) is (stage["name"] in training) for stage in said["stages"])
