"""BEiT against transformers' own module: the same weights, the same mask; and its masking against the published counts."""

from pathlib import Path

import pytest
import torch
from transformers import BeitConfig, BeitForMaskedImageModeling

from isthmus.build.model import build_model
from isthmus.config.masked import BlockwiseMasking, CodePredictor, MaskedImageModel, SmallCodes
from isthmus.config.vision import VitVision
from isthmus.core.batch import Batch
from isthmus.core.errors import CheckpointError
from isthmus.core.protocols import Progress
from isthmus.core.sizes import Size
from isthmus.data.blockwise import blockwise_mask
from isthmus.models.masked_image_model import MaskedImageModel as Module
from isthmus.nn.relative import RelativeBias
from isthmus.objectives.masked_tokens import MaskedTokens

TOLERANCE = 1e-6
"""Logits and losses near 1 were bit-equal in float32, gradients within 4.2e-9; other processors may round otherwise."""


def config_here(weights: str | None = None, **changes: object) -> MaskedImageModel:
    sizes = {"image_size": 32, "patch": 8, "width": 32, "layers": 2, "heads": 4} | changes
    form = {"positions": "none", "relative": True, "mask_token": True, "key_bias": False, "layer_scale": 0.1}
    return MaskedImageModel(
        vision=VitVision(**sizes, **form, features="all"),
        predictor=CodePredictor(),
        masking=BlockwiseMasking(patches=6, least_block=2),
        tokenizer=SmallCodes(vocabulary=20, patch=8, width=16),
        weights=weights,
    )


def twin(drop_path: float = 0.0) -> BeitForMaskedImageModeling:
    torch.manual_seed(1)
    config = BeitConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        vocab_size=20,
        layer_norm_eps=1e-6,
        use_mask_token=True,
        use_shared_relative_position_bias=True,
        use_mean_pooling=True,
        initializer_range=0.2,
        drop_path_rate=drop_path,
    )
    made = BeitForMaskedImageModeling(config).eval()
    for name, parameter in made.named_parameters():
        if "position_bias" in name or "mask_token" in name or name.endswith("proj.bias"):
            torch.nn.init.normal_(parameter)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("beit")
    twin().save_pretrained(made)
    return made


def test_logits_loss_and_gradients_are_those_of_transformers(folder: Path) -> None:
    theirs, model = twin(), build_model(config_here(str(folder)))
    assert isinstance(model, Module)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    masked = torch.rand(3, 16, generator=generator) < 0.4
    told = theirs(pixels, bool_masked_pos=masked).logits
    batch = Batch(sample_ids=("a", "b", "c"), pixels=pixels, masked=masked)
    encoded = model.encode(batch)
    assert encoded.predictions is not None
    assert (encoded.predictions - told).abs().max() < TOLERANCE
    term = MaskedTokens(model)(encoded, batch, Progress(step=0, num_steps=1))["masked_tokens"]
    codes = model.codes(batch)
    # The published loss: the mean over all hidden patches of the batch.
    loss = torch.nn.functional.cross_entropy(told[masked], codes[masked])
    assert term.count == int(masked.sum())
    assert float((term.sum / term.count - loss).detach()) == pytest.approx(0, abs=TOLERANCE)
    (term.sum / term.count).backward()
    loss.backward()
    pairs = (
        ("vision.relative.table", theirs.beit.shared_position_bias.relative_position_bias_table),
        (
            "vision.patch_embedding.projection.weight",
            theirs.beit.embeddings.patch_embeddings.projection.weight,
        ),
    )
    for name, there in pairs:
        here = model.get_parameter(name).grad
        assert here is not None
        assert (here - there.grad).abs().max() < TOLERANCE, name
    assert all(parameter.grad is None for parameter in model.parts()["tokenizer"].parameters())


def test_in_training_the_same_pictures_lose_the_same_updates(folder: Path) -> None:
    theirs, model = twin(0.5).train(), build_model(config_here(str(folder), layers=2, drop_path=0.5)).train()
    pixels = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    masked = torch.rand(6, 16, generator=torch.Generator().manual_seed(3)) < 0.4
    batch = Batch(sample_ids=tuple("abcdef"), pixels=pixels, masked=masked)
    found = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        told = theirs(pixels, bool_masked_pos=masked).logits
        torch.manual_seed(seed)
        found.append(model.encode(batch).predictions)
        assert (found[-1] - told).abs().max() < TOLERANCE
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > 0.01


def test_relative_positions_by_brute_force() -> None:
    grid = Size(height=3, width=4)
    bias = RelativeBias(grid=grid, num_heads=2)
    torch.nn.init.normal_(bias.table)
    added = bias(grid).detach()
    assert added.shape == (2, 13, 13)
    known: dict[tuple[int, int], torch.Tensor] = {}
    for one in range(12):
        for other in range(12):
            apart = (one // 4 - other // 4, one % 4 - other % 4)
            found = added[:, one + 1, other + 1]
            assert torch.equal(known.setdefault(apart, found), found)
    assert len(known) == 5 * 7
    assert len({float(value[0]) for value in known.values()}) == 35
    assert torch.equal(added[:, 0, 1:], bias.table[-3].detach()[:, None].expand(2, 12))
    assert torch.equal(added[:, 1:, 0], bias.table[-2].detach()[:, None].expand(2, 12))
    assert torch.equal(added[:, 0, 0], bias.table[-1].detach())
    with pytest.raises(ValueError, match="made for 3 x 4 patches"):
        bias(Size(height=4, width=4))


def test_blocks_hide_as_many_patches_as_published() -> None:
    """5,000 draws: mean 74.49, least 65, exactly 75 in 67.7% were computed with the official code."""
    grid = Size(height=14, width=14)
    counts = [
        int(blockwise_mask(grid, 75, torch.Generator().manual_seed(seed)).sum()) for seed in range(5000)
    ]
    assert sum(counts) / len(counts) == pytest.approx(74.49, abs=0.1)
    assert max(counts) == 75
    assert min(counts) >= 60
    assert counts.count(75) / len(counts) == pytest.approx(0.677, abs=0.03)
    again = blockwise_mask(grid, 75, torch.Generator().manual_seed(3))
    assert torch.equal(again, blockwise_mask(grid, 75, torch.Generator().manual_seed(3)))


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit the model"):
        build_model(config_here(str(folder), layers=3))
    with pytest.raises(
        CheckpointError, match=r"than the model: vision\.activation is gelu, .* has quick_gelu;"
    ):
        build_model(config_here(str(folder), activation="quick_gelu"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="is a 'bert'"):
        build_model(config_here(str(tmp_path / "bert")))
