"""Vision encoders of our own from a recipe: built up to a layer, they read from a whole encoder's weights what they need."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from isthmus.build.checkpoints import Origin
from isthmus.build.vision import build_vision
from isthmus.config.vision import VitVision
from isthmus.core.errors import CheckpointError
from isthmus.parts.vision.vit import ViT

SIZES = {"image_size": 32, "patch": 8, "width": 16, "layers": 3, "heads": 2, "features": "all"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    whole = build_vision(VitVision(**SIZES), Origin(), frozen=True)
    tensors = {f"vision.{name}": tensor.contiguous() for name, tensor in whole.state_dict().items()}
    save_file(tensors | {"image_head.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    return tmp_path


def built(folder: Path, **settings: object) -> ViT:
    encoder = build_vision(VitVision(**SIZES | settings, weights=str(folder)), Origin(), frozen=True)
    assert isinstance(encoder, ViT)
    return encoder.eval()


@torch.no_grad()
def test_a_cut_encoder_gives_what_enters_the_next_block_of_the_whole_one(folder: Path) -> None:
    whole, pixels, entered = built(folder), torch.randn(2, 3, 32, 32), []
    whole.transformer.blocks[2].register_forward_pre_hook(lambda block, given: entered.append(given[0]))
    whole(pixels)
    cut = built(folder, layer=-2, final_norm=False)
    assert len(cut.transformer.blocks) == 2
    assert torch.equal(cut(pixels), entered[0])


def test_weights_of_a_whole_encoder_still_have_to_fit(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["vision.transformer.blocks.1.norm1.bias"]
    save_file(
        tensors | {"vision.transformer.blocks.2.more": torch.ones(1), "vision.more": torch.ones(1)}, file
    )
    with pytest.raises(CheckpointError, match=r"missing transformer\.blocks\.1\.norm1\.bias; unknown more$"):
        built(folder, layer=-2, final_norm=False)
    with pytest.raises(CheckpointError, match=r"unknown transformer\.blocks\.2\.more"):
        built(folder)
