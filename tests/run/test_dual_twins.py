"""The tiny twin of each dual encoder: its loss falls within seconds, and what is locked stays as it is."""

import json
import math
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file

from isthmus.build.model import build_model
from isthmus.build.text import build_tokenizer
from isthmus.config.load import load_recipe

STEPS = 40
SHORT = ("batch_size=64", "steps=40", "optimizer.warmup_fraction=0.1", "optimizer.schedule=constant")

# Bounds on the mean loss of the last ten of forty steps of 64 rows. A model that gives every picture the same vector has
# ln 64 = 4.16 by the softmax loss and at best ln 64 + 1 = 5.16 by the sigmoid loss. Measured: CLIP 3.67, SigLIP 4.91, FLIP
# 3.88 and, with 48 rows, LiT 1.86.
TWINS = {"clip": 3.95, "siglip": 5.05, "flip": 4.05, "lit": 2.8, "vit_tiny": 3.95}


def trained(name: str, run: Path, *changes: str) -> list[list[float]]:
    """The losses of each stage, in a process of its own, where shapes are not checked."""
    stages = [stage.name for stage in load_recipe(f"tiny/{name}").stages]
    short = [f"stages.{stage}.{change}" for stage in stages for change in SHORT]
    process = small.apart("train", f"tiny/{name}", *short, *changes, "--out", str(run))
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    losses = []
    for stage in stages:
        lines = (run / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        losses.append([record["loss"] for record in records if record["kind"] == "train"])
    return losses


def last(losses: list[float]) -> float:
    return sum(losses[-10:]) / 10


@pytest.mark.parametrize("name", TWINS)
def test_the_loss_of_a_twin_falls(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    few = ["data.train.num_samples=600"] if name == "lit" else []
    short = ["stages.unmasked.steps=1"] if name == "flip" else []
    losses = trained(name, tmp_path / "run", *few, *short)
    assert len(losses[0]) == STEPS
    assert last(losses[0]) < TWINS[name] < losses[0][0]
    final = load_file(tmp_path / "run" / "final" / "model.safetensors")
    assert any(key.startswith("vision.") for key in final) == (name != "lit"), (
        "a locked encoder is not even saved"
    )


def test_the_loss_of_the_twin_of_mae_falls(tmp_path: Path) -> None:
    (losses,) = trained("mae", tmp_path / "run")
    assert len(losses) == STEPS
    # Predicting one colour everywhere costs 0.66; see tests/learns for what it comes to.
    assert last(losses) < 0.75 < losses[0]


def test_the_losses_of_the_twin_of_beit_fall(tmp_path: Path) -> None:
    small_batches = [f"stages.{stage}.batch_size=32" for stage in ("tokenize", "pretrain")]
    tokenize, pretrain = trained("beit", tmp_path / "run", *small_batches)
    assert len(tokenize) == len(pretrain) == STEPS
    # One colour for each picture costs 0.63; measured 0.33. Who knows nothing of 64 codes loses ln 64 = 4.16; measured 0.65.
    assert last(tokenize) < 0.42 < tokenize[0]
    assert last(pretrain) < 1.5 < 3.5 < pretrain[0]
    learnt, final = (load_file(tmp_path / "run" / one / "model.safetensors") for one in ("tokenize", "final"))
    assert learnt
    assert all(torch.equal(final[name], tensor) for name, tensor in learnt.items()), (
        "the tokenizer stays frozen, bit for bit"
    )


def test_the_twin_of_alpha_clip_moves_what_it_should(tmp_path: Path) -> None:
    changes = ["stages.pretrain.steps=2", "stages.regions.steps=12"]
    losses = trained("alpha_clip", tmp_path / "run", *changes)
    assert [len(one) for one in losses] == [2, 12]
    assert all(map(math.isfinite, losses[1]))
    before = load_file(tmp_path / "run" / "pretrain" / "model.safetensors")
    after = load_file(tmp_path / "run" / "regions" / "model.safetensors")
    text = [name for name in before if name.startswith(("text.", "scale."))]
    assert text
    assert all(torch.equal(before[name], after[name]) for name in text), (
        "the text encoder is frozen, bit for bit"
    )
    vision = "vision.patch_embedding.projection.weight"
    assert not torch.equal(before[vision], after[vision])
    recipe = load_recipe("tiny/alpha_clip")
    model = build_model(recipe.model, tokenizer=build_tokenizer(recipe.model, recipe.data, kept=None))
    alpha = "vision.patch_embedding.projection.alpha.weight"
    assert model.state_dict()[alpha].abs().max() == 0
    assert after[alpha].abs().max() > 0


@pytest.mark.parametrize("size", ["", "tiny/"])
def test_the_visual_tokenizer_alone_is_that_of_beit(size: str) -> None:
    alone, beit = load_recipe(f"{size}visual_tokenizer"), load_recipe(f"{size}beit")
    assert alone.model == beit.models["codes"]
    assert alone.stages == (beit.stages[0].model_copy(update={"model": None}),)


def test_twins_differ_from_the_large_ones_in_size_alone() -> None:
    sizes = {"image_size", "patch", "width", "layers", "heads", "mean", "std", "resize", "weights"}
    for name in ("clip", "siglip", "flip"):
        large, twin = load_recipe(name).model, load_recipe(f"tiny/{name}").model
        assert large.vision.model_dump(exclude=sizes) == twin.vision.model_dump(exclude=sizes)
        assert large.image_head == twin.image_head
        for key in ("pool", "activation", "norm_eps", "head_bias"):
            assert getattr(large.text, key) == getattr(twin.text, key), (name, key)
        assert large.scale_init == twin.scale_init
        shares = [
            [stage.patches_kept for stage in load_recipe(which).stages] for which in (name, f"tiny/{name}")
        ]
        assert shares[0] == shares[1]
    large, twin = load_recipe("lit"), load_recipe("tiny/lit")
    assert large.stages[0].train == twin.stages[0].train == ("text", "scale")
    assert large.model.image_head.projection == twin.model.image_head.projection is False
    large, twin = load_recipe("alpha_clip"), load_recipe("tiny/alpha_clip")
    assert large.stages[-1].train == twin.stages[-1].train
    assert large.stages[-1].whole == twin.stages[-1].whole == 0.1
