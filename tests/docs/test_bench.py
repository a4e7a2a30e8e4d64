"""The comparison of connectors: its arms are recipes that differ in nothing but what is compared."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from connectors import CONNECTORS, Arm, arms

from isthmus.config.model import VisionLanguageModel

ARMS = {arm.name: arm for arm in arms()}


def test_the_table_has_three_ways_and_six_connectors() -> None:
    assert list(ARMS) == ["mapper_only", "resampler_only", "both_ways", *CONNECTORS]


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_arms_have_equal_budgets(arm: Arm) -> None:
    recipe, first = arm.recipe_for(7, (11, 22)), ARMS["linear"].recipe_for(7, (11, 22))
    assert recipe.seed == 7
    assert (recipe.data, recipe.evaluation) == (first.data, first.evaluation)
    for stage, other, steps in zip(recipe.stages, first.stages, (11, 22), strict=True):
        assert stage.steps == steps
        for setting in ("name", "data", "rows", "captions", "batch_size", "objective"):
            assert getattr(stage, setting) == getattr(other, setting)
        apart = {"lr_by_part": {}}
        assert stage.optimizer.model_copy(update=apart) == other.optimizer.model_copy(update=apart)
        assert stage.optimizer.lr_by_part.keys() <= {"lora"}
    assert isinstance(recipe.model, VisionLanguageModel)
    assert isinstance(first.model, VisionLanguageModel)
    if arm.name in CONNECTORS:
        same = {"connector": first.model.connector}
        assert recipe.model.model_copy(update=same) == first.model
        assert recipe.model.connector is not None
        assert recipe.model.connector.kind == arm.name


def test_the_ways_add_up() -> None:
    mapper, resampler, both = (
        ARMS[name].recipe_for(0, (1, 1)).model for name in ("mapper_only", "resampler_only", "both_ways")
    )
    assert isinstance(mapper, VisionLanguageModel)
    assert isinstance(resampler, VisionLanguageModel)
    assert isinstance(both, VisionLanguageModel)
    assert mapper.ways["connector"] == both.ways["mapper"]
    assert resampler.ways["connector"].connector == both.ways["resampler"].connector
    assert mapper.part_names == ("vision", "connector", "language")
    assert resampler.part_names == ("vision", "connector", "fusion", "language")
