"""Dual encoders at true size, counted on the meta device: every number as published, without weights or network."""

from typing import Any

import pytest

from isthmus.config.load import load_recipe
from isthmus.run.show import describe

TEXT_OF_BASE = 63_428_096


def shown(name: str, *changes: str) -> dict[str, Any]:
    said: dict[str, Any] = describe(load_recipe(name, changes))
    assert said["total"] == sum(row["parameters"] for row in said["parts"])
    return said | {"parts": {row["name"]: row["parameters"] for row in said["parts"]}}


@pytest.mark.parametrize(
    ("name", "total", "vision_with_projection", "text"),
    [
        ("clip", 151_277_313, 87_849_216, TEXT_OF_BASE),
        ("clip_b16", 149_620_737, 86_192_640, TEXT_OF_BASE),
        ("clip_l14", 427_616_513, 303_966_208, 123_650_304),
        ("clip_l14_336", 427_944_193, 304_293_888, 123_650_304),
        ("siglip", 203_155_970, 92_884_224, 110_271_744),
    ],
)
def test_published_sizes(name: str, total: int, vision_with_projection: int, text: int) -> None:
    said = shown(name)
    assert said["total"] == said["published_total"] == total
    assert said["parts"]["vision"] + said["parts"]["image_head"] == vision_with_projection
    assert said["parts"]["text"] == text
    (stage,) = said["stages"]
    assert stage["frozen"] == 0


def test_other_sizes_of_siglip() -> None:
    vision = [
        "model.vision.width=1152",
        "model.vision.layers=27",
        "model.vision.heads=16",
        "model.vision.ffn=4304",
    ]
    text = ["model.text.width=1152", "model.text.layers=27", "model.text.heads=16", "model.text.ffn=4304"]
    so400m = [*vision, *text, "model.embed_dim=1152", "model.vision.patch=14", "model.text.context=16"]
    assert shown("siglip", *so400m)["total"] == 877_360_306
    assert shown("siglip", "model.vision.image_size=384")["total"] == 203_447_810


def test_alpha_adds_one_convolution() -> None:
    said = shown("alpha_clip")
    assert said["published_total"] == 149_620_737
    assert said["total"] == 149_620_737 + 196_608
    assert said["parts"]["alpha"] == 196_608 == 768 * 16 * 16
    (stage,) = said["stages"]
    assert stage["parts"] == ["vision", "alpha", "image_head"]
    assert stage["frozen"] == TEXT_OF_BASE + 1, "the text encoder and the scale"


def test_flip_is_a_vit_with_fixed_positions() -> None:
    said = shown("flip")
    patches, blocks = 768 * (3 * 16 * 16 + 1), 12 * 7_087_872
    assert said["parts"]["vision"] == patches + blocks + 768 + 2 * 768, (
        "CLS and the last norm; no position is learned"
    )
    masked, unmasked = load_recipe("flip").stages
    assert (masked.patches_kept, unmasked.patches_kept) == (0.5, None)
    assert unmasked.optimizer.lr == pytest.approx(masked.optimizer.lr / 100)


def test_lit_trains_the_text_side_alone() -> None:
    said = shown("lit")
    (stage,) = said["stages"]
    assert stage["parts"] == ["text", "scale"]
    assert said["parts"]["image_head"] == 0
    assert stage["frozen"] == said["parts"]["vision"] == 86_389_248 - 768 * 769, (
        "ViT-B/16 without its pooling layer"
    )


def test_lit_reads_with_bert() -> None:
    """BERT-base is published with a pooling layer, whose place a projection of the same size takes."""
    said, own = shown("lit_bert"), shown("lit_bert", "model.text.head_bias=false")
    pooling = 768 * 768 + 768
    assert said["parts"]["text"] == 109_482_240 - pooling + (768 * 768 + 768)
    assert own["parts"]["text"] == 109_482_240 - pooling + 768 * 768
    (stage,) = said["stages"]
    assert (stage["parts"], stage["trainable"]) == (["text", "scale"], said["parts"]["text"] + 1)
    assert stage["frozen"] == said["parts"]["vision"] == shown("lit")["parts"]["vision"]
