"""Recipes with mixtures, academic data, grouped batches and recomputed parts: what fits and what is refused."""

import pytest
from recipes import spoiled

from isthmus.config.academic import VqaSource
from isthmus.config.data import MixtureSource
from isthmus.config.load import parse_recipe
from isthmus.core.errors import RecipeError

TRAIN = '  train: {kind: shards, files: "${shared}/train-*.tar"}\n'
VQA = "  vqa: {kind: vqav2, questions: q.json, annotations: a.json, images: coco}\n"
MIX = "  mix: {kind: mixture, parts: {train: {rows: captions, cap: 100}, vqa: {weight: 0.5}}}\n"


def test_a_mixture_names_other_sources() -> None:
    recipe = parse_recipe(spoiled((TRAIN, TRAIN + VQA + MIX)), "r.yaml")
    mixture, vqa = recipe.data["mix"], recipe.data["vqa"]
    assert isinstance(mixture, MixtureSource)
    assert isinstance(vqa, VqaSource)
    assert (mixture.parts["train"].cap, mixture.parts["vqa"].weight, mixture.parts["vqa"].rows) == (
        100,
        0.5,
        "conversations",
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (MIX, "data.mix.parts.vqa: found 'vqa', allowed: a name under data"),
        (
            VQA + MIX + "  two: {kind: mixture, parts: {mix: {}}}\n",
            "data.two.parts.mix: found 'mix', a mixture",
        ),
        (VQA + MIX.replace("0.5", "0"), "data.mix.parts.vqa.weight: found 0, allowed: a number above 0"),
        (
            VQA.replace("vqav2", "vqav3") + MIX,
            "data.vqa.kind: found 'vqav3', allowed: shards, folder, llava_json, scenes, clips, mixture, vqav2, okvqa, gqa, a_okvqa, ocr_vqa, textcaps, refcoco, visual_genome; did you mean 'vqav2'?",
        ),
        (
            VQA.replace("images: coco", "pictures: coco") + MIX,
            "data.vqa.pictures: found the unknown key 'pictures'",
        ),
    ],
)
def test_mistakes_in_mixtures(data: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(spoiled((TRAIN, TRAIN + data)), "r.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("[conector]", "stages.0.recompute.0: found 'conector', allowed: parts that are stacks of layers: vision, connector, language"),
        ("[language, vision]", "stages.0.recompute.1: found 'vision', allowed: vision only where the stage trains it"),
    ],
)  # fmt: skip
def test_mistakes_in_recomputed_parts(parts: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(
            spoiled(("    rows: captions\n", f"    rows: captions\n    recompute: {parts}\n")), "r.yaml"
        )
    assert said in str(caught.value)
