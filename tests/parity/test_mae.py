"""MAE against transformers' own module: the same weights, the same noise."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from isthmus.build.model import build_model
from isthmus.config.masked import MaskedImageModel, PixelPredictor
from isthmus.config.vision import VitVision
from isthmus.core.batch import Batch
from isthmus.core.errors import CheckpointError
from isthmus.core.protocols import Progress
from isthmus.interop.mae import load_mae, read_mae_file
from isthmus.models.masked_image_model import MaskedImageModel as Module
from isthmus.objectives.masked_pixels import MaskedPixels
from isthmus.parts.checkpoints import PretrainedSource

TOLERANCE = 1e-6
"""Predictions and losses near 1 were bit-equal in float32, gradients within 1.2e-9; other processors may round otherwise."""


def config_here(weights: str | None = None, **changes: int) -> MaskedImageModel:
    sizes = {"image_size": 32, "patch": 8, "width": 32, "layers": 2, "heads": 4} | changes
    return MaskedImageModel(
        vision=VitVision(**sizes, positions="stored_sincos", features="all"),
        predictor=PixelPredictor(width=16, layers=2, heads=2),
        weights=weights,
    )


def twin(*, normalised: bool = True) -> ViTMAEForPreTraining:
    torch.manual_seed(1)
    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        layer_norm_eps=1e-6,
        norm_pix_loss=normalised,
        initializer_range=0.2,
    )
    made = ViTMAEForPreTraining(config).eval()
    # transformers 5.23 leaves the tables of a fresh model at zero; its own function fills them as published.
    for table, width in ((made.vit.embeddings.position_embeddings, 32), (made.decoder.decoder_pos_embed, 16)):
        made_there = build_2d_sinusoidal_position_embedding(
            height=4, width=4, embed_dim=width, cls_token=True
        )
        # As its own `initialize_weights` turns the halves round: the published tables say the column first.
        table.data.copy_(torch.cat([made_there[:, width // 2 :], made_there[:, : width // 2]], dim=-1))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mae")
    twin().save_pretrained(made)
    return made


def ours(folder: Path) -> Module:
    model = build_model(config_here(str(folder)))
    assert isinstance(model, Module)
    return model


def batch_of(pixels: torch.Tensor, noise: torch.Tensor, *, num_kept: int) -> Batch:
    """The patches with the smallest noise are seen, as in the published code."""
    kept = noise.argsort(dim=1)[:, :num_kept]
    masked = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, value=False)
    return Batch(sample_ids=tuple(map(str, range(len(pixels)))), pixels=pixels, kept=kept, masked=masked)


@pytest.mark.parametrize("normalised", [True, False])
def test_predictions_loss_and_gradients_are_those_of_transformers(folder: Path, normalised: bool) -> None:
    theirs, model = twin(normalised=normalised), ours(folder)
    generator = torch.Generator().manual_seed(2)
    pixels, noise = torch.randn(3, 3, 32, 32, generator=generator), torch.rand(3, 16, generator=generator)
    told = theirs(pixels, noise=noise)
    batch = batch_of(pixels, noise, num_kept=4)
    encoded = model.encode(batch)
    assert encoded.predictions is not None
    assert torch.equal(batch.masked, told.mask.bool())
    assert (encoded.predictions - told.logits).abs().max() < TOLERANCE
    term = MaskedPixels(patch=8, normalised=normalised)(encoded, batch, Progress(step=0, num_steps=1))
    loss = term["masked_pixels"].sum / term["masked_pixels"].count
    assert float((loss - told.loss).detach()) == pytest.approx(0, abs=TOLERANCE)
    loss.backward()
    told.loss.backward()
    here = model.vision.patch_embedding.get_parameter("projection.weight").grad
    there = theirs.vit.embeddings.patch_embeddings.projection.weight.grad
    assert here is not None
    assert (here - there).abs().max() < TOLERANCE


def test_the_order_of_the_patches_that_are_seen_changes_nothing(folder: Path) -> None:
    model = ours(folder)
    generator = torch.Generator().manual_seed(3)
    pixels, noise = torch.randn(2, 3, 32, 32, generator=generator), torch.rand(2, 16, generator=generator)
    drawn = batch_of(pixels, noise, num_kept=5)
    assert drawn.kept is not None
    turned = Batch(sample_ids=drawn.sample_ids, pixels=pixels, kept=drawn.kept.flip(1), masked=drawn.masked)
    first, second = (model.encode(one).predictions for one in (drawn, turned))
    assert first is not None
    assert second is not None
    assert (first - second).abs().max() < TOLERANCE


def official_keys(theirs: ViTMAEForPreTraining) -> dict[str, torch.Tensor]:
    """The twin's weights as facebookresearch/mae names them, written here independently of the reader."""
    state = theirs.state_dict()
    tensors = {
        "cls_token": state["vit.embeddings.cls_token"],
        "pos_embed": state["vit.embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["vit.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["vit.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["vit.layernorm.weight"],
        "norm.bias": state["vit.layernorm.bias"],
        "mask_token": state["decoder.mask_token"],
        "decoder_pos_embed": state["decoder.decoder_pos_embed"],
    }
    for word in ("embed", "norm", "pred"):
        for kind in ("weight", "bias"):
            tensors[f"decoder_{word}.{kind}"] = state[f"decoder.decoder_{word}.{kind}"]
    for there, here in (("vit.layers", "blocks"), ("decoder.decoder_layers", "decoder_blocks")):
        for number in range(2):
            for kind in ("weight", "bias"):
                old, new = f"{there}.{number}", f"{here}.{number}"
                qkv = [state[f"{old}.attention.{one}_proj.{kind}"] for one in "qkv"]
                tensors[f"{new}.attn.qkv.{kind}"] = torch.cat(qkv)
                tensors[f"{new}.attn.proj.{kind}"] = state[f"{old}.attention.o_proj.{kind}"]
                tensors[f"{new}.norm1.{kind}"] = state[f"{old}.layernorm_before.{kind}"]
                tensors[f"{new}.norm2.{kind}"] = state[f"{old}.layernorm_after.{kind}"]
                for layer in ("fc1", "fc2"):
                    tensors[f"{new}.mlp.{layer}.{kind}"] = state[f"{old}.mlp.{layer}.{kind}"]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def test_the_official_layout_gives_the_same_model(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mae.safetensors"
    save_file(official_keys(twin()), file)
    model, known = build_model(config_here(str(file))), ours(folder)
    for name, tensor in known.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_an_encoder_alone_fills_the_encoder(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    alone = {
        name: tensor
        for name, tensor in official_keys(twin()).items()
        if not name.startswith(("decoder", "mask_token"))
    }
    save_file(alone, file)
    model, fresh = build_model(config_here(str(file))), build_model(config_here())
    assert torch.equal(model.get_parameter("vision.cls"), alone["cls_token"][0, 0])
    assert torch.equal(
        model.get_parameter("predictor.head.weight"), fresh.get_parameter("predictor.head.weight")
    )


def test_fixed_positions_are_those_of_the_published_files() -> None:
    model, theirs = build_model(config_here()), twin()
    for here, there in (
        ("vision.positions.table", theirs.vit.embeddings.position_embeddings),
        ("predictor.positions.table", theirs.decoder.decoder_pos_embed),
    ):
        assert (model.get_buffer(here) - there[0]).abs().max() < 2e-7  # bit-equal where this was measured


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit the model"):
        build_model(config_here(str(folder), layers=3))
    with pytest.raises(
        CheckpointError, match=r"something else than the model: vision\.heads is 4, .* has 8;"
    ):
        build_model(config_here(str(folder), heads=8))
    file = tmp_path / "other.safetensors"
    save_file({"tower.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"no part of an MAE: tower\.weight"):
        read_mae_file(file)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_mae_file(tmp_path / "none.safetensors")
    file.write_bytes(b"not one")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_mae_file(file)
    model = build_model(config_here())
    assert isinstance(model, Module)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="is a 'bert'"):
        load_mae(model, PretrainedSource(name=str(tmp_path / "bert")), name="it")
