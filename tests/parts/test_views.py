"""A picture seen mirrored and enlarged: each view's tokens are those the encoder gives for that picture alone."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import MobileNetV2Config, MobileNetV2Model, ViTConfig, ViTModel

from isthmus.build.checkpoints import Origin
from isthmus.build.vision import build_vision
from isthmus.config.load import load_recipe
from isthmus.config.vision import PretrainedVision
from isthmus.core.errors import RecipeError
from isthmus.core.sizes import Size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.35, image_size=64)).save_pretrained(tmp_path)
    return tmp_path


def test_each_view_gives_what_the_encoder_gives_for_that_picture_alone(folder: Path) -> None:
    plain = build_vision(PretrainedVision(name=str(folder), joined=(12,)), Origin(), frozen=True).eval()
    settings = PretrainedVision(name=str(folder), joined=(12,), mirrored=True, enlarged=96)
    seen = build_vision(settings, Origin(), frozen=True).eval()
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    large = functional.interpolate(pixels, size=(96, 96), mode="bicubic", align_corners=False)
    with torch.no_grad():
        expected = [plain(pixels), plain(pixels.flip(3)), plain(large)]
        found = seen(pixels)
    assert [one.shape[1] for one in expected] == [4, 4, 9]
    assert torch.equal(found, torch.cat(expected, dim=1))
    assert seen.num_tokens(Size(64, 64)) == 17
    assert (seen.width, seen.image_size) == (plain.width, plain.image_size)


def test_views_that_an_encoder_cannot_have_are_refused(tmp_path: Path) -> None:
    ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"model\.vision\.enlarged: found 64, .* use enlarged: null"):
        build_vision(PretrainedVision(name=str(tmp_path), enlarged=64), Origin(), frozen=True)
    mirrored = build_vision(PretrainedVision(name=str(tmp_path), mirrored=True), Origin(), frozen=True)
    assert mirrored(torch.rand(1, 3, 32, 32)).shape == (1, 2 * 16, 16)
    with pytest.raises(RecipeError, match="patches, because mirrored and enlarged views add patches"):
        load_recipe("lit", ["model.vision={kind: pretrained, name: x, features: all, mirrored: true}"])
