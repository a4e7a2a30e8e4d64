"""CLIP, SigLIP and LiT in the layouts of their projects: read, written back, and refused where they do not fit."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from dual_twins import (
    batch,
    big_vision_arrays,
    filled,
    hugging_face_clip,
    hugging_face_siglip,
    own_clip,
    own_lit,
    own_siglip,
    shaken,
)
from safetensors.torch import save_file
from torch import nn

from isthmus.build.checkpoints import Origin
from isthmus.build.dual_weights import fill_dual_encoder
from isthmus.core.errors import CheckpointError, DataError
from isthmus.interop.clip_layout import read_clip_layout, write_clip_layout
from isthmus.interop.conversion import convert
from isthmus.interop.dual_encoders import fill, read_weights_file
from isthmus.models.dual_encoder import DualEncoder

HEADS = 4
TOLERANCE = 1e-6
"""Of unit vectors; measured 3e-7 between fused attention here and plain arithmetic in the other layout's order."""


class OpenAi(nn.Module):
    """OpenAI's visual half of CLIP, written anew from its key layout, so that a wrong mapping shows in the numbers."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(tensor.clone()))

    def of(self, name: str) -> torch.Tensor:
        return self.get_parameter(name.replace(".", "/"))

    def normed(self, tokens: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.of(f"{name}.weight"), self.of(f"{name}.bias")
        return nn.functional.layer_norm(tokens, weight.shape, weight, bias, 1e-5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        kernel = self.of("visual.conv1.weight")
        grid = nn.functional.conv2d(pixels, kernel, stride=kernel.shape[-1])
        tokens = grid.flatten(2).transpose(1, 2)
        cls = self.of("visual.class_embedding").expand(len(pixels), 1, -1)
        tokens = torch.cat([cls, tokens], dim=1) + self.of("visual.positional_embedding")
        tokens = self.normed(tokens, "visual.ln_pre")
        for layer in range(3):
            block = f"visual.transformer.resblocks.{layer}"
            read = self.normed(tokens, f"{block}.ln_1")
            mixed, _ = nn.functional.multi_head_attention_forward(
                *[read.transpose(0, 1)] * 3,
                read.shape[2],
                HEADS,
                self.of(f"{block}.attn.in_proj_weight"),
                self.of(f"{block}.attn.in_proj_bias"),
                None,
                None,
                False,
                0.0,
                self.of(f"{block}.attn.out_proj.weight"),
                self.of(f"{block}.attn.out_proj.bias"),
                need_weights=False,
            )
            tokens = tokens + mixed.transpose(0, 1)
            hidden = self.normed(tokens, f"{block}.ln_2") @ self.of(f"{block}.mlp.c_fc.weight").T
            hidden = hidden + self.of(f"{block}.mlp.c_fc.bias")
            hidden = hidden * torch.sigmoid(1.702 * hidden)
            tokens = (
                tokens
                + hidden @ self.of(f"{block}.mlp.c_proj.weight").T
                + self.of(f"{block}.mlp.c_proj.bias")
            )
        return self.normed(tokens[:, 0], "visual.ln_post") @ self.of("visual.proj")


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    return filled(own_clip(), hugging_face_clip())


def openai_state(clip: DualEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in write_clip_layout(clip.state_dict()).items()}


def same(one: DualEncoder, other: DualEncoder) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@torch.no_grad()
def test_openai_keys_mean_what_openai_computes(clip: DualEncoder) -> None:
    given = batch()
    expected = nn.functional.normalize(OpenAi(openai_state(clip))(given.pixels), dim=-1)
    assert (clip.image_vectors(given) - expected).abs().max() < TOLERANCE
    fused = openai_state(clip)["transformer.resblocks.0.attn.in_proj_weight"]
    twin = hugging_face_clip().text_model.encoder.layers[0].self_attn
    assert torch.equal(fused, torch.cat([twin.q_proj.weight, twin.k_proj.weight, twin.v_proj.weight]))


def test_openai_keys_come_back_bit_for_bit(clip: DualEncoder, tmp_path: Path) -> None:
    state = openai_state(clip)
    assert state["visual.proj"].shape == (32, 16)
    assert state["text_projection"].shape == (24, 16)
    assert state["visual.positional_embedding"].shape == (17, 32)
    extra = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(10),
        "vocab_size": torch.tensor(40),
    }
    save_file(state | extra, tmp_path / "openai.safetensors")
    other = own_clip()
    fill_dual_encoder(other, str(tmp_path / "openai.safetensors"), Origin())
    assert same(clip, other)
    custom = {
        f"module.{name}" if name.startswith(("visual", "logit")) else f"module.text.{name}": tensor
        for name, tensor in state.items()
    }
    assert read_clip_layout(custom).keys() == read_clip_layout(state).keys()
    half = read_clip_layout({name: tensor.half() for name, tensor in state.items()})
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}


def test_hugging_face_folders_are_read(clip: DualEncoder, tmp_path: Path) -> None:
    hugging_face_clip().save_pretrained(tmp_path / "clip")
    hugging_face_siglip().save_pretrained(tmp_path / "siglip")
    other = own_clip()
    fill_dual_encoder(other, str(tmp_path / "clip"), Origin())
    assert same(clip, other)
    siglip = own_siglip()
    fill_dual_encoder(siglip, str(tmp_path / "siglip"), Origin())
    assert same(siglip, filled(own_siglip(), hugging_face_siglip()))
    with pytest.raises(CheckpointError, match=r"siglip do not fit the model: .*vision\.cls"):
        fill_dual_encoder(own_clip(), str(tmp_path / "siglip"), Origin())


class Traced(nn.Module):
    """Tensors under names with dots, as a TorchScript archive of OpenAI's holds them."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for step in path:
                if step not in place._modules:
                    place.add_module(step, nn.Module())
                place = place.get_submodule(step)
            place.register_parameter(last, nn.Parameter(tensor, requires_grad=False))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_openais_archive_is_converted_in_a_process_of_its_own(clip: DualEncoder, tmp_path: Path) -> None:
    archive = tmp_path / "ViT.pt"
    torch.jit.script(Traced({name: one.half() for name, one in openai_state(clip).items()})).save(
        str(archive)
    )
    with pytest.raises(CheckpointError, match=r"may run code.*scripts/convert_clip\.py"):
        read_weights_file(archive)
    target = tmp_path / "ViT.safetensors"
    assert convert(archive, target) == len(openai_state(clip))
    other = own_clip()
    fill(other, read_weights_file(target), name="it")
    halved = {name: one.half().float() for name, one in clip.state_dict().items()}
    assert all(torch.equal(tensor, halved[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(DataError, match="exists already"):
        convert(archive, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ViT.pt", "ViT.safetensors"]


class Harmful:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.place),)

    def __init__(self, place: str) -> None:
        self.place = place


def test_plain_tensors_are_converted_and_code_is_not_run(clip: DualEncoder, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": openai_state(clip)}, tmp_path / "open_clip.pt")
    convert(tmp_path / "open_clip.pt", tmp_path / "open_clip.safetensors")
    other = own_clip()
    fill(other, read_weights_file(tmp_path / "open_clip.safetensors"), name="it")
    assert same(clip, other)
    torch.save({"state_dict": Harmful(str(tmp_path / "ran"))}, tmp_path / "harmful.pt")
    with pytest.raises(CheckpointError, match=r"harmful\.pt could not be read"):
        convert(tmp_path / "harmful.pt", tmp_path / "harmful.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("stacked", [False, True])
def test_big_vision_files_are_read(tmp_path: Path, stacked: bool) -> None:
    siglip = filled(own_siglip(), hugging_face_siglip())
    arrays = big_vision_arrays(siglip, width=32, heads=4)
    if stacked:
        blocks: dict[str, list[np.ndarray]] = {}
        for name in sorted(name for name in arrays if "encoderblock_" in name):
            blocks.setdefault(re.sub(r"encoderblock_\d+", "encoderblock", name), []).append(arrays.pop(name))
        arrays |= {name: np.stack(group) for name, group in blocks.items()}
    np.savez(tmp_path / "siglip.npz", **arrays, **{"opt/count": np.zeros(1)})
    other = own_siglip()
    fill(other, read_weights_file(tmp_path / "siglip.npz"), name="it")
    assert same(siglip, other)


@torch.no_grad()
def test_a_lit_of_big_vision_is_read_with_either_table_of_positions(tmp_path: Path) -> None:
    """Old files have a position for CLS; a ViT whose CLS has one of its own computes what they mean."""
    placed, lit, bare = own_lit(cls="placed"), own_lit(), own_lit()
    shaken(placed)
    arrays = big_vision_arrays(placed, width=32, heads=4)
    position = placed.vision.cls_position[None, None].numpy()
    table = "params/img/pos_embedding"
    old = arrays | {table: np.concatenate([position, arrays[table]], axis=1)}
    np.savez(tmp_path / "old.npz", **old)
    np.savez(tmp_path / "new.npz", **arrays)
    fill(lit, read_weights_file(tmp_path / "old.npz"), name="it")
    fill(bare, read_weights_file(tmp_path / "new.npz"), name="it")
    given, (expected, found, other) = batch(), (one.encode(batch()) for one in (placed, lit, bare))
    assert (found.image_views - expected.image_views).abs().max() < TOLERANCE
    assert (other.image_views - expected.image_views).abs().max() > 100 * TOLERANCE, "the position matters"
    assert torch.equal(found.text_vectors, placed.text_vectors(given))
    assert torch.equal(found.text_vectors, other.text_vectors)
    assert lit.logit_scale() == placed.logit_scale()


def test_objects_and_strange_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "object.npz", t=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"object\.npz is damaged or no \.npz of arrays"):
        read_weights_file(tmp_path / "object.npz")
    np.savez(tmp_path / "bert.npz", **{"params/txt/BertModel_0/embeddings/kernel": np.zeros((2, 2))})
    with pytest.raises(CheckpointError, match=r"holds 1 arrays that are no part.*BertModel_0"):
        read_weights_file(tmp_path / "bert.npz")
    save_file({"decoder.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"none of the keys.*first is decoder\.weight"):
        read_weights_file(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights_file(tmp_path / "damaged.safetensors")


@torch.no_grad()
def test_positions_of_another_grid_are_interpolated(clip: DualEncoder) -> None:
    larger = own_clip(image_size=48)
    fill(larger, clip.state_dict(), name="it")
    assert torch.equal(larger.vision.cls_position, clip.vision.cls_position)
    table = clip.vision.positions.table.reshape(4, 4, 32).permute(2, 0, 1)[None]
    expected = nn.functional.interpolate(
        table, size=(6, 6), mode="bicubic", antialias=True, align_corners=False
    )
    assert torch.equal(larger.vision.positions.table, expected[0].permute(1, 2, 0).reshape(36, 32))
    assert larger.image_vectors(batch(image_size=48)).shape == (5, 16)
