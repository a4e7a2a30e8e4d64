"""Ways into the language model: one or two, which parts they make, and what does not go together."""

import pytest
from recipes import GOOD, spoiled

from isthmus.config.load import parse_recipe, resolved_yaml
from isthmus.config.model import VisionLanguageModel
from isthmus.config.recipe import Recipe
from isthmus.core.errors import RecipeError

CONNECTOR = "connector: {kind: mlp, depth: 2}"
FUSION = "fusion: {kind: splice, placeholder: virtual}"
MAPPER = "    mapper: {connector: {kind: mapping_mlp}}\n"
READER = "    reader: {connector: {kind: perceiver_resampler}, fusion: {kind: cross_attention}}\n"
TRAINED = "train: [connector]"


def two_ways(paths: str = MAPPER + READER, *, more: str = "") -> str:
    """`GOOD` with paths in place of connector and fusion; `more` stands beside them."""
    text = spoiled((f"  {CONNECTOR}\n", f"  paths:\n{paths}"), (f"  {FUSION}\n", more))
    return (
        text.replace(TRAINED, "train: [mapper, reader, fusion]")
        .replace("train: [connector, language]", "train: [reader]")
        .replace("lr_by_part: {connector: 1e-4}", "lr_by_part: {reader: 1e-4}")
    )


def parts(recipe: Recipe) -> tuple[str, ...]:
    return recipe.model.part_names


@pytest.mark.parametrize(
    ("fusion", "names"),
    [
        ("{kind: splice}", ("vision", "connector", "language")),
        ("{kind: cross_attention}", ("vision", "connector", "fusion", "language", "token_rows")),
        (
            "{kind: cross_attention, marker: trained}",
            ("vision", "connector", "fusion", "language", "token_rows"),
        ),
        ("{kind: cross_attention, marker: none}", ("vision", "connector", "fusion", "language")),
    ],
)
def test_a_fusion_decides_which_parts_there_are(fusion: str, names: tuple[str, ...]) -> None:
    assert parts(parse_recipe(spoiled((FUSION, f"fusion: {fusion}")), "good.yaml")) == names


def test_two_ways_are_named_by_their_paths_and_have_no_markers() -> None:
    recipe = parse_recipe(two_ways(), "good.yaml")
    assert parts(recipe) == ("vision", "mapper", "reader", "fusion", "language")
    assert isinstance(recipe.model, VisionLanguageModel)
    assert recipe.model.splice is not None
    assert recipe.model.splice[0] == "mapper"
    assert recipe.model.attention is not None
    assert recipe.model.attention[0] == "reader"
    assert not recipe.model.has_markers
    assert parse_recipe(resolved_yaml(recipe), "resolved.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            GOOD.replace(f"  {CONNECTOR}\n", ""),
            "model.connector: found nothing, allowed: a connector, or paths with connectors of their own",
        ),
        (
            two_ways(more=f"  {CONNECTOR}\n"),
            "model.connector: found a connector, allowed: null, because paths has the connectors",
        ),
        (
            two_ways(more="  fusion: {kind: cross_attention}\n"),
            "model.fusion: found a fusion, allowed: nothing, because each of paths has its own",
        ),
        (
            two_ways(MAPPER),
            "model.paths: found splice, allowed: one path by splice and one by cross_attention",
        ),
        (
            two_ways(MAPPER + MAPPER.replace("mapper:", "reader:")),
            "model.paths: found splice, splice, allowed: one path by splice and one by cross_attention",
        ),
        (
            two_ways(MAPPER + READER.replace("reader:", "vision:")),
            "model.paths.vision: found 'vision', allowed: a word other than vision, connector, fusion, language",
        ),
        (
            two_ways(MAPPER + READER.replace("cross_attention}", "cross_attention, marker: none}")),
            "model.paths.reader.fusion.marker: found 'none', allowed: null, because the spliced tokens mark where",
        ),
        (
            two_ways(more="  tiles: {}\n  weights: llava-hf/llava-1.5-7b-hf\n"),
            "model.weights: found 'llava-hf/llava-1.5-7b-hf', allowed: null, because this goes with one connector and splice",
        ),
        (
            spoiled((FUSION, "fusion: {kind: cross_attention}\n  tiles: {}")),
            "model.tiles: found tiles, allowed: null, because this goes with one connector and splice alone",
        ),
        (
            spoiled((TRAINED, "train: [fusion]")),
            "stages.0.train.0: found 'fusion', allowed: parts of this vision_language_model: vision, connector, language",
        ),
        (
            spoiled((FUSION, "fusion: {kind: cross_attention, placement: middle}")),
            "model.fusion.placement: found 'middle', allowed: first, last",
        ),
    ],
)
def test_what_does_not_go_together_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "bad.yaml")
    assert says in str(caught.value)
