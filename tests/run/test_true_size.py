"""Recipes at true size, counted on the meta device: every number as published, without weights or network."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from isthmus.build.model import build_model
from isthmus.config.load import load_recipe
from isthmus.core.batch import IGNORED
from isthmus.core.errors import RecipeError
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.fusion.splice import splice
from isthmus.run.show import describe

LAYER_OF_SIGLIP = 7_087_872
CLIP_336 = 303_507_456
LAST_LAYER_AND_NORM_OF_CLIP = 12_598_272


def shown(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What `show --json` says, and the rows by name."""
    said: dict[str, Any] = describe(load_recipe(name, overrides))
    assert said["total"] == sum(row["parameters"] for row in said["parts"])
    assert said["published_total"] == sum(row["published_parameters"] for row in said["parts"])
    return said | {row["name"]: row for row in said["parts"]} | {one["name"]: one for one in said["stages"]}


def counts(row: dict[str, Any]) -> tuple[int, int]:
    return row["parameters"], row["published_parameters"]


@pytest.mark.parametrize(
    ("name", "language", "connector", "tokens"),
    [
        ("llava", "lmsys/vicuna-7b-v1.3", 4_198_400, 256),
        ("llava", "lmsys/vicuna-13b-v1.3", 5_248_000, 256),
        ("llava_1_5", "lmsys/vicuna-7b-v1.5", 20_979_712, 576),
        ("llava_1_5_13b", "lmsys/vicuna-13b-v1.5", 31_467_520, 576),
    ],
)
def test_llava(name: str, language: str, connector: int, tokens: int) -> None:
    said = shown(name, [f"model.language.name={language}"])
    size = 13_015_864_320 if "13b" in language else 6_738_415_616
    assert counts(said["connector"]) == (connector, connector)
    assert counts(said["language"]) == (size, size)
    vision = 303_179_776 if name == "llava" else CLIP_336
    assert counts(said["vision"]) == (vision - LAST_LAYER_AND_NORM_OF_CLIP, vision)
    assert said["visual_tokens"] == tokens
    assert said["align"]["trainable"] == connector
    assert said["instruct"]["trainable"] == connector + size
    assert said["instruct"]["frozen"] == vision - LAST_LAYER_AND_NORM_OF_CLIP


def test_llava_1_5_builds_less_than_was_published() -> None:
    said = shown("llava_1_5")
    assert (said["total"], said["published_total"]) == (7_050_304_512, 7_062_902_784)


def test_llava_1_5_13b_differs_in_the_language_model_only() -> None:
    small, large = load_recipe("llava_1_5"), load_recipe("llava_1_5_13b")
    named = small.model.language.model_copy(update={"name": "lmsys/vicuna-13b-v1.5"})
    assert large.model == small.model.model_copy(update={"language": named})
    assert (large.data, large.stages) == (small.data, small.stages)


def test_siglip_gemma() -> None:
    said = shown("siglip_gemma")
    assert counts(said["vision"]) == (86_087_424, 93_176_064)
    assert counts(said["connector"]) == (1_574_912, 1_574_912)
    assert counts(said["language"]) == (2_506_174_464, 2_506_172_416)
    assert said["total"] == 2_593_836_800
    assert said["align"]["trainable"] == 1_574_912
    assert said["instruct"]["trainable"] == 2_069_546_752
    assert said["instruct"]["frozen"] == 256_001 * 2048
    assert said["visual_tokens"] == 576
    head = said["language"]["parts"][-1]
    assert (head["name"], head["parameters"], head["tied"]) == ("lm_head", 256_001 * 2048, True)


@pytest.mark.parametrize("layer", [0, 1, 6, 11, 12])
def test_each_layer_of_siglip_left_out_saves_its_parameters(layer: int) -> None:
    vision = shown("siglip_gemma", [f"model.vision.layer={layer}"])["vision"]
    assert counts(vision) == (86_087_424 - (12 - layer) * LAYER_OF_SIGLIP, 93_176_064)


def test_a_whole_siglip_keeps_what_it_does_not_use() -> None:
    assert counts(shown("siglip_gemma", ["model.vision.layer=null"])["vision"]) == (93_176_064, 93_176_064)
    with_norm = shown("siglip_gemma", ["model.vision.final_norm=true"])["vision"]
    assert counts(with_norm) == (86_087_424 + 1_536, 93_176_064)


def test_other_placeholders_add_no_row() -> None:
    for placeholder in ("virtual", "{reuse: 3}"):
        said = shown("siglip_gemma", [f"model.fusion.placeholder={placeholder}"])
        assert counts(said["language"]) == (2_506_172_416, 2_506_172_416)


def test_a_row_of_7_ids_with_one_placeholder_has_582_positions() -> None:
    model = build_model(load_recipe("siglip_gemma").model, weights="random", device="meta")
    assert isinstance(model, VisionLanguageModel)
    assert model.placeholder_id == 256_000
    num_visual = model.connector.num_tokens(model.vision.num_tokens(model.vision.image_size))
    tokenizer = train_tokenizer(["describe this image now"], algorithm="word", vocabulary=50, lower=True)
    codec = TextCodec(
        tokenizer=tokenizer,
        template=ChatTemplate.from_name("plain"),
        placeholder_id=model.placeholder_id,
        context=2048,
    )
    turns = (Turn("user", (ImagePart(0), "describe this image")), Turn("assistant", ("now",)))
    short = codec.encode(turns, tokens_per_image=[1], origin="row")
    assert (len(short.ids), short.ids.count(256_000)) == (7, 1)
    row = codec.encode(turns, tokens_per_image=[num_visual], origin="row")
    assert len(row.ids) == 6 + 576 == 582
    assert [at for at, index in enumerate(row.ids) if index == 256_000] == list(range(1, 577))
    assert row.targets[:577] == [IGNORED] * 577
    # Spliced, the row has as many positions, and the visual tokens stand in theirs as they are.
    ids = torch.tensor([row.ids])
    visual = torch.randn(576, 4)
    joined = splice(text=torch.zeros(1, 582, 4), places=ids == 256_000, visual=visual)
    assert joined.shape == (1, 582, 4)
    assert torch.equal(joined[0, 1:577], visual)


def test_a_layer_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(
        RecipeError,
        match=r"model\.vision: there is no layer -26: .* has 24 layers; choose one from -25 to 24",
    ):
        shown("llava_1_5", ["model.vision.layer=-26"])
    with pytest.raises(RecipeError, match=r"belongs to the last layer \(24\).*final_norm: false"):
        shown("llava_1_5", ["model.vision.final_norm=true"])
