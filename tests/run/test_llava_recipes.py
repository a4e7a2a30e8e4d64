"""LLaVA's recipes: published counts at true size, and whole checkpoints that they start from."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import small
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaNextForConditionalGeneration

from isthmus.build.model import build_model
from isthmus.config.academic import AcademicSource
from isthmus.config.data import MixtureSource
from isthmus.config.load import load_recipe
from isthmus.core.errors import RecipeError
from isthmus.data.scenes import words
from isthmus.data.vocabulary import train_tokenizer
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.run.show import describe

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("parity", "core"))

from llava_twins import CUT, SIDE, joint_batch, llava_next
from token_counts import PUBLISHED

CLIP_336 = 303_507_456
BEHIND_LAYER_23 = 12_598_272


@pytest.mark.parametrize(
    ("name", "connector", "newline", "language"),
    [
        ("llava_next", 20_979_712, 4_096, 6_738_415_616),
        ("llava_next_13b", 31_467_520, 5_120, 13_015_864_320),
        ("llava_next_mistral", 20_979_712, 4_096, 7_241_732_096),
        ("llava_next_34b", 1025 * 7168 + 7169 * 7168, 7_168, 34_388_917_248),
    ],
)
def test_llava_next_at_true_size(name: str, connector: int, newline: int, language: int) -> None:
    recipe = load_recipe(name)
    said = describe(recipe)
    rows = {row["name"]: row for row in said["parts"]}
    assert rows["vision"]["parameters"] == CLIP_336 - BEHIND_LAYER_23
    assert rows["vision"]["published_parameters"] == CLIP_336
    counts = {row: rows[row]["parameters"] for row in ("connector", "newline", "language")}
    assert counts == {"connector": connector, "newline": newline, "language": language}
    align, instruct = said["stages"]
    assert (align["trainable"], instruct["frozen"]) == (connector, 0)
    assert recipe.stages[1].optimizer.lr == 1e-5
    assert recipe.stages[1].optimizer.lr_by_part == {"vision": 2e-6}
    assert said["visual_tokens"] == 1176


@pytest.mark.parametrize(("written", "tokens"), PUBLISHED.items())
def test_show_counts_the_tokens_of_a_picture(written: str, tokens: int) -> None:
    said = small.isthmus("show", "llava_next", "--image-size", written, "--json").json
    assert said["visual_tokens"] == tokens


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "model.connector={kind: perceiver_resampler}",
            "found 'perceiver_resampler', allowed: linear, mlp, pix",
        ),
        ("model.vision.features=all", r"model\.vision\.features: found 'all', allowed: patches, because"),
        ("model.vision.mirrored=true", r"model\.vision: found several views of each tile, allowed: one view"),
        ("model.vision.enlarged=448", r"model\.vision: found several views of each tile, allowed: one view"),
        ("features={store: true}", "features: found a feature store, allowed: null"),
    ],
)
def test_what_gives_no_grids_of_patches_cannot_be_tiled(change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("llava_next", [change])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA-NeXT as the hub holds one: weights, tokenizer and preprocessor."""
    place = tmp_path_factory.mktemp("llava")
    tokenizer = train_tokenizer([" ".join(words())], algorithm="word", vocabulary=200, lower=True)
    tokenizer.save_pretrained(place)
    text = llava_next().config.text_config
    text.vocab_size = len(tokenizer) + 1
    network = llava_next(text=text)
    network.config.image_token_index = len(tokenizer)
    network.save_pretrained(place)
    CUT.save_pretrained(place)
    return place


def recipe_text(folder: Path, *, weights: str | None = None) -> str:
    placeholder = json.loads((folder / "config.json").read_text())["image_token_index"]
    language = f"{{kind: pretrained, name: {folder}, template: plain, context: 200}}"
    text = small.vision_language(
        language, stages=small.stage("align", "connector, newline", "captions", steps="1")
    )
    more = (
        f"  weights: {weights or folder}\n  tiles: {{}}\n"
        f"  fusion: {{kind: splice, placeholder: {{reuse: {placeholder}}}}}\n"
    )
    vision = f"{{kind: pretrained, name: {folder}, layer: -2, final_norm: false}}"
    return text.replace(f"  vision: {small.VISION}\n", f"  vision: {vision}\n{more}")


def test_a_recipe_that_starts_from_a_folder_computes_what_transformers_computes(
    folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(small.written(tmp_path / "next.yaml", recipe_text(folder))))
    model = build_model(recipe.model)
    assert isinstance(model, VisionLanguageModel)
    joint = joint_batch([[(33, 47)], [(16, 50), (40, 40)]], tiled=True, left=False, image_processor=CUT)
    network = LlavaNextForConditionalGeneration.from_pretrained(folder).eval()
    ids = joint.ours.token_ids
    moved = torch.where(ids == 60, model.placeholder_id, ids)
    with torch.no_grad():
        theirs = network(**joint.theirs | {"input_ids": moved, "labels": None}).logits
    # Measured: equal bits.
    gap = (model.logits(replace(joint.ours, token_ids=moved)) - theirs)[joint.ours.attention_mask]
    assert gap.abs().max() < 1e-6


def test_a_run_that_starts_from_a_folder_can_be_shown_and_asked(folder: Path, tmp_path: Path) -> None:
    recipe = small.written(tmp_path / "next.yaml", recipe_text(folder))
    shown = small.isthmus("show", recipe, "--image-size", f"{2 * SIDE}x{SIDE}", "--json").json
    assert shown["visual_tokens"] == 16 + 4 * (8 + 1)
    trained = small.isthmus("train", recipe, "--out", tmp_path / "run", "--json").json
    assert [stage["name"] for stage in trained["stages"]] == ["align"]
    said = small.isthmus(
        "ask", tmp_path / "run", small.picture(tmp_path / "p.png"), "what is it ?", "--json"
    ).json
    assert said["tokens"] >= 0


def test_a_recipe_that_starts_from_an_original_connector(folder: Path, tmp_path: Path) -> None:
    connector = {f"model.mm_projector.{at}.{leaf}": torch.randn(shape) for at, leaf, shape in CONNECTOR}
    save_file(connector, tmp_path / "mm_projector.safetensors")
    text = recipe_text(folder, weights=str(tmp_path / "mm_projector.safetensors"))
    text = text.replace(f"{{kind: pretrained, name: {folder}, layer: -2, final_norm: false}}", small.VISION)
    text = text.replace(
        f"name: {folder}, template", f"name: {small.language_folder(tmp_path / 'lm')}, template"
    )
    text = text.replace(text[text.index("  fusion:") : text.index("  connector:")], "")
    text = text.replace("context: 200", "context: 64")
    model = build_model(load_recipe(str(small.written(tmp_path / "c.yaml", text))).model)
    assert isinstance(model, VisionLanguageModel)
    assert torch.equal(model.connector.layers[2].weight, connector["model.mm_projector.2.weight"])


CONNECTOR = [(0, "weight", (16, 16)), (0, "bias", (16,)), (2, "weight", (16, 16)), (2, "bias", (16,))]


def test_weights_that_do_not_fit_end_with_every_difference(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tensors = load_file(other / "model.safetensors")
    del tensors["image_newline"]
    tensors["multi_modal_projector.linear_2.bias"] = torch.zeros(7)
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    recipe = small.written(tmp_path / "next.yaml", recipe_text(folder, weights=str(other)))
    outcome = small.isthmus("train", recipe, "--out", tmp_path / "run")
    assert outcome.code == 4
    assert "missing model.image_newline" in outcome.sentence
    assert "linear_2.bias is (7,), expected (40,)" in outcome.sentence


def test_the_academic_mixture_has_every_reader_and_table_7_of_the_paper() -> None:
    recipe = load_recipe("llava_1_5_academic")
    mixture = recipe.data["instructions"]
    assert isinstance(mixture, MixtureSource)
    sources = {recipe.data[name].kind for name in mixture.parts}
    readers = [source.model_fields["kind"].annotation for source in get_args(AcademicSource)]
    assert {kind for reader in readers for kind in get_args(reader)} | {"llava_json"} == sources
    thousands = sum(part.cap or 0 for part in mixture.parts.values()) / 1000
    assert thousands == 158 + 40 + 83 + 72 + 9 + 80 + 66 + 22 + 48 + 86
    assert mixture.parts["sharegpt"].rows == "text_answers"
    assert recipe.stages[1].group_by_modality
    same = load_recipe("llava_1_5")
    assert recipe.model == same.model
    assert recipe.stages[0] == same.stages[0]
