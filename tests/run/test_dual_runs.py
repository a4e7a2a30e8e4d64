"""Dual encoders from recipe to judgement: marked regions, classes by prompts and by a probe, patches left out."""

from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file

from isthmus.build.model import build_model
from isthmus.build.text import build_tokenizer
from isthmus.config.load import load_recipe
from isthmus.run import retrieval
from isthmus.run.load import load

VISION = "{kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2, features: cls, alpha: true}"
DATA = small.DATA + "  shapes: {kind: scenes, split: SPLIT, num_samples: 30, image_size: 32, single: shape}\n"
REGIONS = (
    small.DUAL.replace(small.VISION, VISION)
    .replace("{pooling: mean}", "{pooling: first, norm: none}")
    .split("stages:")[0]
    + "stages:\n"
    + small.stage(
        "regions",
        "vision, alpha, image_head",
        "regions",
        objective="{contrastive: 1.0}",
        whole="0.25",
        optimizer="{lr: 1e-3, lr_by_part: {alpha: 1e-1}, warmup_fraction: 0.0}",
    )
    + "evaluation: {task: regions, val: val, test: test}\n"
)


def judged(folder: Path, text: str) -> dict:
    recipe = small.written(folder / "recipe.yaml", text)
    trained = small.isthmus("train", recipe, "--out", folder / "run", "--json")
    assert trained.code == 0, trained.err
    return small.isthmus("evaluate", folder / "run", "--json").json


def test_regions_are_trained_and_judged(tmp_path: Path) -> None:
    said = judged(tmp_path, REGIONS)
    assert said["metrics"].keys() == {"accuracy"}
    assert said["controls"].keys() == {"empty", "whole", "other"}
    assert 0.25 <= said["chance"] <= 0.5
    assert said["n"] > 24
    final = load_file(tmp_path / "run" / "final" / "model.safetensors")
    assert not [name for name in final if name.startswith(("text.", "scale."))], (
        "the text encoder is not trained"
    )
    alpha = final["vision.patch_embedding.projection.alpha.weight"]
    assert alpha.abs().max() > 0
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    tokenizer = build_tokenizer(recipe.model, recipe.data, kept=None)
    before = build_model(recipe.model, tokenizer=tokenizer, seed=recipe.seed).state_dict()
    moved = {name: (tensor - before[name]).abs().max() for name, tensor in final.items()}
    assert (
        moved["vision.patch_embedding.projection.alpha.weight"]
        > 20 * moved["vision.patch_embedding.projection.weight"]
    ), "two learning rates"
    assert "Marked things on test" in (tmp_path / "run" / "report.html").read_text()


def test_classes_are_named_by_prompts(tmp_path: Path) -> None:
    text = small.DUAL.replace(small.DATA, DATA.replace("SPLIT", "test"))
    asked = "{task: zero_shot, val: shapes, test: shapes, prompts: ['there is a {} .', 'a {}', 'the shape is a {} .']}"
    text = text.split("evaluation:")[0] + f"evaluation: {asked}\n"
    said = judged(tmp_path, text)
    assert said["classes"] == ["circle", "square", "star", "triangle"]
    assert said["chance"] == 0.25
    assert said["n"] == 30
    assert said["controls"].keys() == {"shuffled", "one prompt"}
    low, high = said["metrics"]["accuracy"]["low"], said["metrics"]["accuracy"]["high"]
    assert 0 <= low <= said["metrics"]["accuracy"]["value"] <= high <= 1


def test_classes_are_named_by_a_probe(tmp_path: Path) -> None:
    data = (
        DATA.replace("SPLIT", "train")
        + "  more: {kind: scenes, split: train, num_samples: 60, image_size: 32, single: shape}\n"
    )
    text = small.DUAL.replace(small.DATA, data)
    asked = "{task: probe, train: more, val: shapes, test: shapes}"
    said = judged(tmp_path, text.split("evaluation:")[0] + f"evaluation: {asked}\n")
    assert len(said["classes"]) == 6
    assert said["penalty"] > 0
    assert said["metrics"]["accuracy"]["value"] > said["controls"]["shuffled"]["accuracy"]["value"]
    assert said["metrics"]["accuracy"]["value"] > 0.3, (
        "even a random encoder's features tell six shapes apart somewhat"
    )


def test_patches_are_left_out_in_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []
    from isthmus.nn.transformer import Transformer

    forward = Transformer.forward

    def noted(self: Transformer, tokens: torch.Tensor, *more: object, **named: object) -> torch.Tensor:
        if not more:
            seen.append((self.training, tokens.shape[1]))
        return forward(self, tokens, *more, **named)

    monkeypatch.setattr(Transformer, "forward", noted)
    text = small.DUAL.replace("captions, ", "captions, patches_kept: 0.5, ", 1)
    judged(tmp_path, text)
    assert {length for training, length in seen if training} == {1 + 8}, "CLS always stays"
    assert {length for training, length in seen if not training} == {1 + 16}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha: true": "alpha: false", ", alpha,": ",", "lr_by_part: {alpha: 1e-1}, ": ""}, "rows"),
        ({"rows: regions": "rows: captions"}, "whole"),
        ({"whole: 0.25": "captions: all"}, "captions"),
    ],
)
def test_regions_need_an_encoder_that_reads_alpha(tmp_path: Path, change: dict[str, str], said: str) -> None:
    text = REGIONS
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    outcome = small.isthmus("train", small.written(tmp_path / "recipe.yaml", text), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert f"stages.0.{said}" in outcome.err


def test_a_batch_of_one_has_nothing_to_compare(tmp_path: Path) -> None:
    text = small.DUAL.replace("batch_size: 8", "batch_size: 1")
    refused = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert refused.code == 2
    assert "stages.0.batch_size: found 1, allowed: 2 or more" in refused.err


def test_patches_can_only_be_left_out_of_a_vit(tmp_path: Path) -> None:
    folder = "${shared}/models/mobilenet_v2"
    text = small.DUAL.replace(small.VISION, f'{{kind: pretrained, name: "{folder}"}}')
    text = text.replace("captions, ", "captions, patches_kept: 0.5, ", 1)
    outcome = small.isthmus("train", small.written(tmp_path / "recipe.yaml", text), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert (
        "stages.0.patches_kept: found 0.5, allowed: null, because only a vision encoder of kind vit"
        in outcome.err
    )


def test_equal_texts_in_different_blocks_have_equal_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short block and a long one, which by themselves give the same words another last bit."""
    folder = tmp_path / "run"
    recipe = small.written(tmp_path / "recipe.yaml", small.DUAL)
    assert small.isthmus("train", recipe, "--out", folder, "--json").code == 0
    model, processor = retrieval.compared(load(folder))
    monkeypatch.setattr(retrieval, "_TEXTS_AT_ONCE", 2)
    long = (
        "a large red star at the top left , a small red ring at the top right , a circle at the bottom left ."
    )
    texts = ["a red star .", "a ring .", "a red star .", long, "A red   star ."]
    vectors = retrieval.embed_texts(model, processor, texts)
    assert torch.equal(vectors[0], vectors[2])
    assert vectors.shape[0] == len(texts)
    apart = torch.cat([retrieval.embed_texts(model, processor, [text]) for text in texts])
    assert (vectors - apart).abs().max() < 1e-5, "each text has its own vector"
    assert torch.pdist(vectors[[0, 1, 3]]).min() > 1e-4
