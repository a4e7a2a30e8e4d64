"""What a dual encoder cannot learn from: one sentence and the documented exit code, or a count of what was cut."""

import json
from pathlib import Path

import pytest
import small
import torch
from PIL import Image

from isthmus.data.images import ImageProcessor
from isthmus.data.scenes import words
from isthmus.data.vocabulary import train_tokenizer


def trained(folder: Path, text: str, *more: str) -> small.Outcome:
    folder.mkdir(exist_ok=True)
    recipe = small.written(folder / "recipe.yaml", text)
    return small.isthmus("train", recipe, *more, "--out", folder / "run")


def changed(*pairs: tuple[str, str]) -> str:
    text = small.DUAL
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def photographs(folder: Path, *, num: int = 120) -> str:
    """The recipe, which learns from a folder of pictures with the same caption beside each."""
    folder.mkdir()
    for number in range(num):
        Image.new("RGB", (32, 32), (2 * number, 100, 0)).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text("a large red ring .")
    mine = f"data:\n  mine: {{kind: folder, path: {folder}}}\n"
    return changed(("data:\n", mine), ("data: train, steps", "data: mine, steps"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "patch: 8",
            "patch: 7",
            "model.vision.patch: found 7, allowed: a number that divides image_size = 32",
        ),
        ("patch: 8", "patch: 8, std: [0, 1, 1]", "model.vision.std.0: found 0, allowed: a number above 0"),
        (
            "rows: captions",
            "rows: captions, patches_kept: 0.06",
            "stages.0.patches_kept: found 0.06, allowed: at least 0.0625, so that one of 16 patches is seen",
        ),
        (
            "embed_dim: 8",
            "embed_dim: 8\n  scale_init: 0.5",
            "scale_init: found 0.5, allowed: a number at least 1",
        ),
        (
            "embed_dim: 8",
            "embed_dim: 8\n  scale_init: 101",
            "scale_init: found 101, allowed: a number at most 100",
        ),
        ("context: 32", "context: 2", "a text of 2 tokens has no room for a word"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    refused = trained(tmp_path, changed((old, new)))
    assert refused.code == 2, refused.err
    assert said in refused.err


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([" ".join(words())], algorithm="word", vocabulary=200, lower=True)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = tmp_path / "tokenizer" / "tokenizer_config.json"
    known = json.loads(settings.read_text(encoding="utf-8"))
    published = f"{{kind: pretrained, name: {tmp_path / 'tokenizer'}, vocabulary: 200}}"
    text = changed(("{kind: trained, data: train, algorithm: word, vocabulary: 200}", published))
    assert trained(tmp_path / "with", text).code == 0
    settings.write_text(json.dumps({key: value for key, value in known.items() if key != "eos_token"}))
    refused = trained(tmp_path / "without", text)
    assert refused.code == 2, refused.err
    assert "the tokenizer has no end token (eos_token or sep_token)" in refused.err


def test_a_caption_longer_than_the_context_is_cut_and_counted(tmp_path: Path) -> None:
    text = photographs(tmp_path / "pictures", num=8)
    for file in sorted((tmp_path / "pictures").glob("*.txt"))[:2]:
        file.write_text("red " * 100)
    assert trained(tmp_path, text).code == 0
    (report,) = (tmp_path / "run").glob("*/data.json")
    assert json.loads(report.read_text())["truncated_fraction"] == 0.25


def test_repeated_captions_are_told_of_with_their_share(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = photographs(tmp_path / "pictures", num=8)
    (tmp_path / "pictures" / "000.txt").write_text("a small blue star .")
    (tmp_path / "pictures" / "001.txt").write_text("a circle .")
    assert trained(tmp_path, text).code == 0
    (said,) = [record.getMessage() for record in caplog.records if "more than once" in record.getMessage()]
    assert "75% of the texts of its first step" in said


def test_pictures_of_floating_point_numbers_are_named(tmp_path: Path) -> None:
    text = photographs(tmp_path / "pictures")
    for number in range(3):
        (tmp_path / "pictures" / f"{number:03d}.png").unlink()
        Image.new("F", (32, 32), float("nan")).save(tmp_path / "pictures" / f"{number:03d}.tiff")
    refused = trained(tmp_path, text, "stages.0.steps=15")
    assert refused.code == 3, refused.err
    assert ".tiff holds floating-point numbers; expected 8 or 16 bits a channel" in refused.err


@pytest.mark.parametrize("micro", [8, 4])
def test_pixels_that_are_no_numbers_stop_before_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: int
) -> None:
    normalised = ImageProcessor.normalised

    def spoiled(self: ImageProcessor, picture: Image.Image) -> torch.Tensor:
        pixels = normalised(self, picture)
        return pixels * float("nan") if picture.getpixel((0, 0)) == (6, 100, 0) else pixels

    monkeypatch.setattr(ImageProcessor, "normalised", spoiled)
    text = photographs(tmp_path / "pictures", num=8)
    stopped = trained(tmp_path, text, f"stages.0.micro_batch_size={micro}")
    assert stopped.code == 5, stopped.err
    assert "the loss is not finite" in stopped.err
    (incident,) = (tmp_path / "run").glob("*/incident-0.json")
    assert "003" in json.loads(incident.read_text())["sample_ids"]
    assert not list((tmp_path / "run").glob("*/checkpoints/step-1"))
