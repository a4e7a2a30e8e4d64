"""BLIP-2 at true size: every published count, from the shipped configurations, without weights and without network."""

from typing import Any

import pytest
import small

from isthmus.config.load import load_recipe
from isthmus.run.show import describe


def counts(said: dict[str, Any]) -> dict[str, int]:
    return {row["name"]: row["parameters"] for row in said["parts"]}


def inner(said: dict[str, Any], part: str) -> dict[str, int]:
    row = next(row for row in said["parts"] if row["name"] == part)
    return {one["name"]: one["parameters"] for one in row["parts"]}


def test_blip2_with_opt() -> None:
    said = small.isthmus("show", "blip2", "--json").json
    assert counts(said) == {"vision": 985_949_440, "connector": 107_133_696, "language": 2_651_596_800}
    assert said["total"] == said["published_total"] == 3_744_679_936
    assert said["visual_tokens"] == 32
    assert inner(said, "connector") == {
        "own": 24_576,
        "patch_norm": 2_816,
        "layers": 105_137_664,
        "projection": 1_968_640,
    }
    assert [stage["trainable"] for stage in said["stages"] if stage["name"] == "generate"] == [107_133_696]


def test_the_first_stage_of_blip2() -> None:
    said: Any = describe(load_recipe("blip2").alone("represent"))
    inside = inner(said, "connector")
    head = 768 * 768 + 768 + 2 * 768 + 30_523
    assert inside["layers"] + inside["text"] == 161_825_280 + 23_834_880 + head
    assert counts(said)["heads"] == 2 * (768 * 256 + 256) + (768 * 2 + 2) + 1


@pytest.mark.parametrize(
    ("recipe", "changes", "language", "projection"),
    [
        ("blip2", ["models.generate.language.name=facebook/opt-6.7b"], 6_658_473_984, 3_149_824),
        ("blip2_flan_t5", [], 2_849_757_184, 1_574_912),
    ],
)
def test_blip2_with_other_language_models(
    recipe: str, changes: list[str], language: int, projection: int
) -> None:
    said: Any = describe(load_recipe(recipe, changes).alone("generate"))
    assert counts(said)["language"] == language
    assert inner(said, "connector")["projection"] == projection
    assert said["total"] == 985_949_440 + 105_165_056 + projection + language
