"""Flamingo, VisualTextModel, AnyMAL and ClipCap at true size: every published number, without weights or network."""

from typing import Any

import pytest
import small

from isthmus.config.load import load_recipe
from isthmus.run.show import describe


def rows(said: dict[str, Any]) -> dict[str, int]:
    return {row["name"]: row["parameters"] for row in said["parts"]}


def inside(said: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return next(row["parts"] for row in said["parts"] if row["name"] == part)


def changed(name: str, *overrides: str) -> dict[str, Any]:
    """What `isthmus show` says of a changed recipe."""
    said: dict[str, Any] = small.isthmus("show", name, *overrides, "--json").json
    return said


def test_flamingo() -> None:
    said = small.isthmus("show", "flamingo", "--json").json
    counts = rows(said)
    assert counts["vision"] == 303_179_776
    assert counts["connector"] == 63_019_008
    assert counts["connector"] + counts["fusion"] == 1_178_834_960
    assert counts["language"] == 6_649_286_656
    assert counts["token_rows"] == 2 * 4096
    assert len(inside(said, "fusion")) == 8
    assert said["stages"][0]["trainable"] == 1_178_834_960 + 2 * 4096
    assert said["visual_tokens"] == 64


@pytest.mark.parametrize(
    ("language", "block"),
    [
        ("togethercomputer/RedPajama-INCITE-Base-3B-v1", 56_109_058),
        ("facebook/opt-2.7b", 56_109_058),
        ("mosaicml/mpt-7b", 139_476_994),
    ],
)
def test_a_gated_block_grows_with_the_language_model(language: str, block: int) -> None:
    blocks = inside(changed("flamingo", f"model.language.name={language}"), "fusion")
    assert [row["parameters"] for row in blocks] == [block] * 8


def test_flamingo_by_the_rule_of_the_paper_has_as_many_blocks() -> None:
    said = changed("flamingo", "model.fusion.placement=first")
    assert rows(said)["fusion"] == 1_178_834_960 - 63_019_008


def test_visual_text_model_and_the_rows_of_its_table() -> None:
    said = small.isthmus("show", "visual_text_model", "--json").json
    counts = rows(said)
    assert counts["vision"] == 87_456_000
    assert [row["parameters"] for row in inside(said, "mapper")] == [393_728, 393_984]
    resampler = {row["name"]: row["parameters"] for row in inside(said, "resampler")}
    layers = {f"layers.{index}": 2_363_904 for index in range(4)}
    assert resampler == {"own": 433_152, **layers, "norm": 1_536}
    language = {row["name"]: (row["parameters"], row.get("tied", False)) for row in inside(said, "language")}
    assert language == {
        "transformer": (124_439_808, False),
        "lm_head": (38_597_376, True),
        "with fusion": (152_788_248, True),
    }
    assert said["total"] == 250_922_264
    assert (said["stages"][0]["trainable"], said["stages"][0]["frozen"]) == (39_026_456, 211_895_808)
    assert said["visual_tokens"] == 1 + 64
    printed = [
        line.split() for line in small.isthmus("show", "visual_text_model", "--table").out.splitlines()
    ]
    counted = {
        number for words in printed for number in words if number.strip("()").replace(",", "").isdigit()
    }
    assert counted >= {
        "87,456,000",
        "393,728",
        "393,984",
        "433,152",
        "2,363,904",
        "1,536",
        "2,362,370",
        "(152,788,248)",
        "(38,597,376)",
        "250,922,264",
        "39,026,456",
        "211,895,808",
    }
    assert [words[2] for words in printed if words and words[0].startswith("layers.")] == ["2,363,904"] * 4


@pytest.mark.parametrize(("every", "count"), [(2, 138_614_028), (3, 133_889_288), (4, 131_526_918)])
def test_visual_text_model_with_fewer_blocks(every: int, count: int) -> None:
    said = changed("visual_text_model", f"model.paths.resampler.fusion.every={every}")
    assert inside(said, "language")[-1]["parameters"] == count


def test_visual_text_model_with_its_transformer_mapper() -> None:
    mapper = "{kind: frame_transformer, layers: 8, heads: 8, ffn: 2048}"
    said = changed("visual_text_model", f"model.paths.mapper.connector={mapper}")
    assert rows(said)["mapper"] == 44_111_872


def test_the_two_ways_of_visual_text_model_alone() -> None:
    """The ablations of its authors: 787,712 and 38,238,744 numbers learn."""
    recipe = load_recipe("visual_text_model")
    assert recipe.model.kind == "vision_language_model"
    ways = recipe.model.ways
    alone = {
        name: recipe.model.model_copy(update={"paths": {}, "connector": way.connector, "fusion": way.fusion})
        for name, way in ways.items()
    }
    fusion = alone["resampler"].fusion.model_copy(update={"marker": "none"})
    alone["resampler"] = alone["resampler"].model_copy(update={"fusion": fusion})
    learnt = {"mapper": ["connector"], "resampler": ["connector", "fusion"]}
    counts = {}
    for name, model in alone.items():
        stage = recipe.stages[0].model_copy(update={"train": tuple(learnt[name])})
        said = describe(recipe.model_copy(update={"model": model, "stages": (stage,)}))
        stages: Any = said["stages"]
        counts[name] = stages[0]["trainable"]
    assert counts == {"mapper": 787_712, "resampler": 38_238_744}


def test_anymal() -> None:
    said = small.isthmus("show", "anymal", "--json").json
    assert rows(said) == {
        "vision": 303_179_776,
        "connector": 1_615_597_568,
        "language": 8_030_261_248,
        "lora": 167_772_160,
    }
    assert [stage["trainable"] for stage in said["stages"]] == [1_615_597_568, 1_615_597_568 + 167_772_160]
    assert said["visual_tokens"] == 64


@pytest.mark.parametrize(
    ("connector", "count", "tokens"),
    [
        ("{kind: latent_transformer, context_norm: false}", 1_615_548_416, 64),
        ("{kind: mlp, norm: true}", 20_981_760, 257),
        ("{kind: pooled_mlp, queries: 64}", 88_377_344, 64),
    ],
)
def test_variants_of_anymal(connector: str, count: int, tokens: int) -> None:
    said = changed("anymal", f"model.connector={connector}")
    assert (rows(said)["connector"], said["visual_tokens"]) == (count, tokens)


@pytest.mark.parametrize(
    ("connector", "count", "tokens"),
    [
        ("{kind: mapping_mlp, prefix: 10}", 31_468_800, 10),
        ("{kind: mapping_transformer}", 41_745_408, 10),
        ("{kind: mapping_transformer, prefix: 40, vectors: 40}", 53_587_968, 40),
    ],
)
def test_clipcap(connector: str, count: int, tokens: int) -> None:
    said = changed("clipcap", f"model.connector={connector}")
    assert (rows(said)["connector"], said["visual_tokens"]) == (count, tokens)
    assert rows(said)["language"] == 124_439_808


def test_clipcap_on_the_vectors_of_an_encoder_640_wide() -> None:
    """As wide as CLIP's RN50x4, with which the paper's transformer was trained."""
    said = changed(
        "clipcap",
        "model.vision={kind: vit, image_size: 288, patch: 32, width: 640, layers: 1, heads: 10, features: cls}",
        "model.connector={kind: mapping_transformer, prefix: 40, vectors: 40}",
    )
    assert (rows(said)["connector"], said["visual_tokens"]) == (57_520_128, 40)
