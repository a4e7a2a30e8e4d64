"""Models that learn from pictures without texts: MAE, BEiT, classifiers, from recipe to report."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file

from isthmus.build.model import build_model
from isthmus.config.load import load_recipe
from isthmus.core.sizes import Size
from isthmus.data.images import ImageProcessor
from isthmus.data.masked import MaskedImageProcessor, draw_patches
from isthmus.data.processor import PictureReader
from isthmus.data.sources.scenes import SceneSource
from isthmus.nn.patches import patchify, unpatchify

MAE = (
    f"name: small-mae\nseed: 3\n{small.DATA}model:\n  kind: masked_image_model\n"
    "  vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2, positions: stored_sincos, features: all}\n"
    "  predictor: {kind: pixels, width: 8, layers: 1, heads: 2, normalised: false}\nstages:\n"
    + small.stage(
        "pretrain",
        "vision, predictor",
        "pictures",
        objective="{masked_pixels: 1.0}",
        validation=small.VALIDATION,
    )
    + "evaluation: {task: reconstruction, val: val, test: test}\n"
)
BEIT = (
    f"name: small-beit\nseed: 3\n{small.DATA}models:\n"
    "  codes: {kind: visual_tokenizer, image_size: 32, tokenizer: {kind: dvae, vocabulary: 12, patch: 8, width: 16}}\n"
    "  see:\n    kind: masked_image_model\n"
    "    vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 2, heads: 2, positions: none, relative: true,\n"
    "      mask_token: true, key_bias: false, layer_scale: 0.1, drop_path: 0.3, features: all}\n"
    "    predictor: {kind: codes}\n    masking: {kind: blockwise, patches: 6, least_block: 2}\n"
    "    tokenizer: {kind: dvae, vocabulary: 12, patch: 8, width: 16}\nfinal: see\nstages:\n"
    + small.stage("tokenize", "tokenizer", "pictures", objective="{reconstruction: 1.0}", model="codes")
    + small.stage(
        "pretrain",
        "vision, predictor",
        "pictures",
        objective="{masked_tokens: 1.0}",
        model="see",
        start_from="tokenize",
        validation=small.VALIDATION,
    )
    + "evaluation: {task: reconstruction, val: val, test: test}\n"
)
CLASSES = (
    "name: small-classes\nseed: 3\ndata:\n"
    + "".join(
        f"  {split}: {{kind: scenes, split: {split}, num_samples: 40, image_size: 32, single: colour}}\n"
        for split in ("train", "val", "test")
    )
    + f"model:\n  kind: classifier\n  vision: {small.VISION}\n"
    "  classes: [red, orange, yellow, green, blue, purple, pink, black]\nstages:\n"
    + small.stage(
        "name", "vision, head", "classes", objective="{classification: 1.0}", validation=small.VALIDATION
    )
    + "evaluation: {task: classification, val: val, test: test}\n"
)


@pytest.mark.parametrize(
    ("recipe", "parts", "total"),
    [
        ("mae", {"vision": 85_798_656, "predictor": 26_109_184}, 111_907_840),
        ("mae_large", {"vision": 303_301_632}, 329_541_888),
        ("mae_huge", {"vision": 630_764_800}, 657_074_508),
        ("vit_tiny", {"vision": 916_992}, None),
        ("vit_tiny_classifier", {"vision": 916_992}, None),
    ],
)
def test_published_counts(recipe: str, parts: dict[str, int], total: int | None) -> None:
    said = small.isthmus("show", recipe, "--json").json
    found = {part["name"]: part["parameters"] for part in said["parts"]}
    assert found | parts == found
    assert total is None or said["total"] == total


def test_the_position_tables_of_mae_never_learn() -> None:
    (stage,) = small.isthmus("show", "mae", "--json").json["stages"]
    assert (stage["trainable"], stage["frozen"]) == (111_655_680, 197 * (768 + 512))


def test_mae_trains_resumes_and_shows_what_it_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.written(tmp_path / "mae.yaml", MAE)
    assert small.isthmus("train", recipe, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patched:
        small.Killer("pretrain", 2).install(patched)
        assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 130
    assert small.isthmus("train", recipe, "--out", tmp_path / "run", "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(tmp_path / "whole")
    judged = small.isthmus("evaluate", tmp_path / "run", "--json").json
    assert judged["n"] == 24
    assert set(judged["controls"]) == {"one_colour", "shuffled"}
    strips = sorted((tmp_path / "run" / "reconstructions").glob("*.png"))
    assert len(strips) == 12
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "what was rebuilt" in page
    assert page.count("data:image/") >= 12


def test_beit_takes_its_tokenizer_over_and_leaves_it_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.written(tmp_path / "beit.yaml", BEIT)
    assert small.isthmus("train", recipe, "--out", tmp_path / "whole").code == 0
    learnt, final = (
        load_file(tmp_path / "whole" / one / "model.safetensors") for one in ("tokenize", "final")
    )
    assert learnt.keys() < final.keys()
    assert all(torch.equal(final[name], tensor) for name, tensor in learnt.items())
    # The temperature of the choice has come down with the steps.
    assert float(learnt["tokenizer.temperature"]) == pytest.approx((1 / 16) ** 0.75)
    with monkeypatch.context() as patched:
        small.Killer("tokenize", 2).install(patched)
        assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 130
    assert small.isthmus("train", recipe, "--out", tmp_path / "run", "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(tmp_path / "whole")
    judged = small.isthmus("evaluate", tmp_path / "run", "--json").json
    assert {"error", "right_codes", "codes_in_use"} == set(judged["metrics"])
    assert set(judged["controls"]) == {"one_colour", "commonest", "shuffled"}
    assert 1 <= judged["metrics"]["codes_in_use"] <= 12
    assert "codes in use" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "run" / "reconstructions").glob("*.png"))) == 12


def test_beit_takes_over_a_tokenizer_of_another_run(tmp_path: Path) -> None:
    head, codes, see, tokenize, pretrain = re.split(r"(?=  codes:|  see:|final:|  - .*name: pretrain)", BEIT)
    judged = pretrain[pretrain.index("evaluation:") :]
    other = head + see + tokenize[: tokenize.index("  - ")] + pretrain
    other = other.replace("start_from: tokenize", f"start_from: {tmp_path / 'codes'}")
    alone = head + codes + tokenize.removeprefix("final: see\n") + judged
    for name, text in (("codes", alone), ("see", other)):
        made = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / name)
        assert made.code == 0, made.err
    learnt, final = (load_file(tmp_path / run / "final" / "model.safetensors") for run in ("codes", "see"))
    assert learnt.keys() < final.keys()
    assert all(torch.equal(final[name], tensor) for name, tensor in learnt.items())


def test_what_is_listed_as_fresh_begins_anew_after_a_stage_of_the_same_model(tmp_path: Path) -> None:
    again = small.stage(
        "again",
        "predictor",
        "pictures",
        objective="{masked_tokens: 1.0}",
        model="see",
        drop="[predictor.head]",
        fresh="[predictor.head]",
        optimizer="{lr: 1e-12, warmup_fraction: 0.0}",
    )
    text = BEIT.replace("evaluation:", f"{again}evaluation:")
    made = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert made.code == 0, made.err
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    initial = build_model(recipe.models["see"], seed=recipe.seed).get_parameter("predictor.head.weight")
    before, after = (load_file(tmp_path / "run" / one / "model.safetensors") for one in ("pretrain", "again"))
    name = "predictor.head.weight"
    assert torch.allclose(after[name], initial, atol=1e-9)
    assert (before[name] - after[name]).abs().max() > 1e-3
    assert torch.equal(before["vision.cls"], after["vision.cls"])


def test_a_visual_tokenizer_alone_is_judged(tmp_path: Path) -> None:
    objectives = "{reconstruction: 1.0, uniform_codes: 0.01, even_codes: 0.1}"
    stages = BEIT.index("  - {kind: train, name: pretrain")
    text = BEIT[:stages].replace("{reconstruction: 1.0}", objectives)
    text = text.replace("final: see\n", "") + BEIT[BEIT.index("evaluation:") :]
    see = text.index("  see:\n")
    text = text[:see] + text[text.index("stages:") :]
    recipe = small.written(tmp_path / "r.yaml", text)
    made = small.isthmus("train", recipe, "--out", tmp_path / "run")
    assert made.code == 0, made.err
    judged = small.isthmus("evaluate", tmp_path / "run", "--json").json
    assert set(judged["controls"]) == {"one_colour"}
    lines = (tmp_path / "run" / "tokenize" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    step = next(one for one in map(json.loads, lines) if one["kind"] == "train")
    assert 0 < step["even_codes"] < step["uniform_codes"] < 2.5, "ln 12 = 2.48 is the most"
    parts = step["reconstruction"] + 0.01 * step["uniform_codes"] + 0.1 * step["even_codes"]
    assert step["loss"] == pytest.approx(parts, rel=1e-5)


def test_beit_counts_as_published() -> None:
    said = small.isthmus("show", "beit", "--json").json
    parts = {part["name"]: part["parameters"] for part in said["parts"]}
    assert parts["vision"] + parts["predictor"] == 91_965_776
    assert parts["vision"] == 85_666_128
    assert said["models"]["codes"]["total"] == parts["tokenizer"]


def test_a_classifier_is_judged_with_controls(tmp_path: Path) -> None:
    recipe = small.written(tmp_path / "r.yaml", CLASSES)
    assert small.isthmus("train", recipe, "--out", tmp_path / "run").code == 0
    judged = small.isthmus("evaluate", tmp_path / "run", "--json").json
    assert set(judged["controls"]["answers"]) == {"real", "blank", "shuffled", "wrong"}
    assert judged["n"] == 40
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert {row["truth"] for row in results["examples"]} <= set(
        CLASSES.split("[")[1].split("]")[0].split(", ")
    )


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (MAE.replace("features: all", "features: patches"), 2, "the predictor reads CLS and patches"),
        (MAE.replace("rows: pictures", "rows: captions"), 2, "allowed: pictures"),
        (MAE.replace("rows: pictures", "rows: pictures, patches_kept: 0.5"), 2, "model.masking says"),
        (MAE.replace("{masked_pixels: 1.0}", "{next_token: 1.0}"), 2, "masked_pixels"),
        (MAE.replace("stages:", "  masking: {kind: random, masked: 0.99}\nstages:"), 2, "one of 16 patches"),
        (BEIT.replace("mask_token: true", "mask_token: false"), 2, "something in their place"),
        (
            BEIT.replace("{kind: blockwise, patches: 6, least_block: 2}", "{kind: random}"),
            2,
            "keeps every patch's place",
        ),
        (
            BEIT.replace("    tokenizer: {kind: dvae, vocabulary", "    tokenizer: null # {vocabulary"),
            2,
            "whose codes are predicted",
        ),
        (BEIT.replace("start_from: tokenize, ", ""), 2, "else the codes are those of random weights"),
        (
            BEIT.replace("image_size: 32, tokenizer", "image_size: 32, mean: [0, 0, 0], tokenizer"),
            2,
            "encoder's mean",
        ),
        (
            BEIT.replace("image_size: 32, tokenizer", "image_size: 30, tokenizer"),
            2,
            "divides image_size = 30",
        ),
        (
            BEIT.replace("train: [vision, predictor]", "train: [vision, predictor, tokenizer]"),
            2,
            "no gradient",
        ),
        (
            BEIT.replace(
                "{reconstruction: 1.0}", "{reconstruction: 1.0, even_codes: 0.1}, micro_batch_size: 4"
            ),
            2,
            "counts the codes of the whole batch",
        ),
        (BEIT.replace("least_block: 2", "least_block: 7"), 2, "found 7, allowed: at most 6"),
        (BEIT.replace("patches: 6", "patches: 16"), 2, "fewer than all 16 patches"),
        (
            BEIT.replace("{masked_tokens: 1.0}", "{masked_pixels: 1.0}"),
            2,
            "cannot serve the objective masked_pixels",
        ),
        (CLASSES.replace("[red, orange,", "[red, red,"), 2, "each class once"),
        (CLASSES.replace("[red, orange,", "["), 3, "expected one of model.classes"),
        (CLASSES.replace(", single: colour", ""), 3, "has the class ''"),
    ],
)
def test_mistakes_have_one_sentence(tmp_path: Path, text: str, code: int, said: str) -> None:
    refused = small.isthmus("train", small.written(tmp_path / "r.yaml", text), "--out", tmp_path / "run")
    assert refused.code == code, refused.err
    assert said in refused.err
    assert "Traceback" not in refused.err


def test_masks_are_drawn_from_sample_and_choice() -> None:
    images = ImageProcessor(size=Size(32, 32), resize="none", mean=(0.5,) * 3, std=(0.5,) * 3)
    draw = partial(draw_patches, 196, 0.75)
    processor = MaskedImageProcessor(pictures=PictureReader(images=images), draw=draw)
    source = SceneSource(split="train", num_samples=3, image_size=32)
    one, again, later = (processor.row(source.sample(0), choice=choice) for choice in (5, 5, 6))
    other = processor.row(source.sample(1), choice=5)
    assert one.kept is not None
    assert one.masked is not None
    assert len(one.kept) == 49
    assert int(one.masked.sum()) == 147
    assert not one.masked[one.kept].any()
    assert torch.equal(one.kept, again.kept)
    assert not torch.equal(one.kept, later.kept)
    assert not torch.equal(one.kept, other.kept)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48), (40, 8)])
def test_unpatchify_undoes_patchify(height: int, width: int) -> None:
    pixels = torch.randn(2, 3, height, width)
    patches = patchify(pixels, 8)
    assert torch.equal(unpatchify(patches, 8, Size(height // 8, width // 8)), pixels)
    # Rows, columns, channels: the second number of a patch is the green of its first pixel.
    assert torch.equal(patches[:, 0, 1], pixels[:, 1, 0, 0])
    assert torch.equal(patches[:, 0, 3], pixels[:, 0, 0, 1])
