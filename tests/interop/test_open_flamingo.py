"""OpenFlamingo's names and its arithmetic, written out tensor by tensor, against the parts that are filled from them."""

from pathlib import Path

import pytest
import torch
from open_flamingo_twins import (
    HEAD,
    HEADS,
    LATENTS,
    SIGHT,
    VOCABULARY,
    WIDTH,
    Sizes,
    State,
    made,
    published,
    saved,
)
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig

from isthmus.build.model import build_model
from isthmus.config.load import load_recipe
from isthmus.core.errors import CheckpointError, RecipeError
from isthmus.interop.open_flamingo import load_open_flamingo
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.fusion.gated_block import GatedBlock
from isthmus.parts.vision.pretrained import load_vision_encoder


def normalised(state: State, name: str, tokens: Tensor) -> Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def read(state: State, name: str, queries: Tensor, context: Tensor) -> Tensor:
    """Every query reads all of the context, one head after the other."""
    query = queries @ state[f"{name}.to_q.weight"].T
    key, value = (context @ state[f"{name}.to_kv.weight"].T).chunk(2, dim=-1)
    heads = []
    for head in range(HEADS):
        at = slice(head * HEAD, (head + 1) * HEAD)
        shares = (query[:, at] @ key[:, at].T / HEAD**0.5).softmax(dim=-1)
        heads.append(shares @ value[:, at])
    return torch.cat(heads, dim=-1) @ state[f"{name}.to_out.weight"].T


def fed_forward(state: State, name: str, tokens: Tensor) -> Tensor:
    wide = functional.gelu(normalised(state, f"{name}.0", tokens) @ state[f"{name}.1.weight"].T)
    return wide @ state[f"{name}.3.weight"].T


@pytest.mark.parametrize("prefix", ["", "module."])
def test_resampler_and_blocks_compute_what_the_published_ones_do(tmp_path: Path, prefix: str) -> None:
    state, model = published(), made()
    load_open_flamingo(model, saved({prefix + name: one for name, one in state.items()}, tmp_path))
    patches = torch.randn(7, SIGHT)
    latents = state["perceiver.latents"]
    for layer in range(2):
        place = f"perceiver.layers.{layer}"
        media = normalised(state, f"{place}.0.norm_media", patches)
        queries = normalised(state, f"{place}.0.norm_latents", latents)
        latents = latents + read(state, f"{place}.0", queries, torch.cat([media, queries]))
        latents = latents + fed_forward(state, f"{place}.1", latents)
    expected = normalised(state, "perceiver.norm", latents)
    assert model.attention_connector is not None
    found = model.attention_connector(patches[None])[0]
    # Largest differences measured: 1.2e-7 here, 2.4e-7 for the blocks.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert model.fusion is not None
    for number, layer in enumerate((1, 3)):
        place = f"lang_encoder.transformer.h.{layer}.gated_cross_attn_layer"
        words = torch.randn(3, WIDTH)
        queries = normalised(state, f"{place}.attn.norm", words)
        after = words + state[f"{place}.attn_gate"].tanh() * read(state, f"{place}.attn", queries, expected)
        after = after + state[f"{place}.ff_gate"].tanh() * fed_forward(state, f"{place}.ff", after)
        block = model.fusion.blocks[number]
        assert isinstance(block, GatedBlock)
        key, value = block.keys_and_values(expected[None])
        seen = torch.ones(1, 3, LATENTS, dtype=torch.bool)
        torch.testing.assert_close(block(words[None], key, value, seen)[0], after, rtol=0, atol=1e-6)
    table = state["lang_encoder.transformer.wte.weight"]
    rows = model.language.rows
    assert rows is not None
    assert torch.equal(rows.table, table[[-2, -3]])
    image, end_of_chunk = model.language.new_ids
    assert torch.equal(model.language.embed(torch.tensor([[image, end_of_chunk]]))[0], table[[-2, -3]])


def test_the_older_names_of_blocks_and_frozen_weights_beside_them_are_read(tmp_path: Path) -> None:
    state, one, other = published(), made(), made()
    load_open_flamingo(one, saved(state, tmp_path))
    older = {
        name.replace("transformer.h.", "gated_cross_attn_layers.").replace(
            ".gated_cross_attn_layer.", "."
        ): tensor
        for name, tensor in state.items()
    }
    frozen = {
        "vision_encoder.conv1.weight": torch.zeros(2),
        "lang_encoder.transformer.h.1.decoder_layer.mlp.c_fc.weight": torch.zeros(2),
        "lang_encoder.old_decoder_blocks.1.mlp.c_fc.weight": torch.zeros(2),
    }
    load_open_flamingo(other, saved(older | frozen, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_all_differences_are_listed_and_nothing_is_changed(tmp_path: Path) -> None:
    state, model = published(), made()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state.pop("perceiver.latents")
    state["perceiver.norm.bias"] = torch.zeros(3)
    state["lang_encoder.transformer.h.0.gated_cross_attn_layer.attn_gate"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_open_flamingo(model, saved(state, tmp_path))
    for words in (
        "unknown lang_encoder.transformer.h.0.gated_cross_attn_layer.attn_gate",
        "missing connector.latents",
        f"connector.norm.bias is (3,), expected ({SIGHT},)",
    ):
        assert words in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_open_flamingo(model, tmp_path / "torn.safetensors")
    spliced = VisionLanguageModel(
        vision=model.vision,
        connector=MLPConnector(vision_width=SIGHT, language_width=WIDTH),
        language=model.language,
        placeholder_id=VOCABULARY,
    )
    with pytest.raises(CheckpointError, match="for a model with cross_attention, which this one has not"):
        load_open_flamingo(spliced, saved(published(), tmp_path))


def test_a_head_that_is_not_tied_gets_its_own_new_rows(tmp_path: Path) -> None:
    state, model = published(), made(tied=False)
    rows = model.language.rows
    assert rows is not None and rows.head is not None
    before = rows.head.clone()
    load_open_flamingo(model, saved(state, tmp_path))
    assert torch.equal(rows.head, before)
    # GPT-NeoX's head has "embed" in its name, so OpenFlamingo's checkpoints hold it, frozen as it is.
    head = torch.randn(VOCABULARY + 3, WIDTH)
    both = state | {"lang_encoder.embed_out.weight": head}
    load_open_flamingo(model, saved(both, tmp_path))
    assert torch.equal(rows.head, head[[-2, -3]])
    assert torch.equal(rows.table, state["lang_encoder.transformer.wte.weight"][[-2, -3]])
    load_open_flamingo(made(), saved(both, tmp_path))
    short = {name: one[:1] if name.endswith("wte.weight") else one for name, one in state.items()}
    with pytest.raises(CheckpointError, match=rf"rows\.table is \(1, {WIDTH}\), expected \(2, {WIDTH}\)"):
        load_open_flamingo(model, saved(short, tmp_path))


def test_a_model_that_computes_something_else_is_refused_although_every_shape_fits(tmp_path: Path) -> None:
    other = made(head=32, activation="squared_relu", latent_keys=False)
    with pytest.raises(CheckpointError) as caught:
        load_open_flamingo(other, saved(published(), tmp_path))
    for words in (
        "connector.head_dim is 64, the model has 32",
        "connector.latent_keys is true, the model has false",
        "fusion.head_dim is 64, the model has 32",
        "fusion.activation is gelu, the model has another",
    ):
        assert words in str(caught.value)
    assert "connector.activation" not in str(caught.value)


def test_clip_is_read_before_its_last_norm(tmp_path: Path) -> None:
    sizes = CLIPVisionConfig(
        hidden_size=SIGHT,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    sizes.save_pretrained(tmp_path / "clip")
    source = PretrainedSource(name=str(tmp_path / "clip"), random=True)
    file, model = saved(published(), tmp_path), made()
    for features, final_norm, words in (
        ("patches", True, "vision features are not normalised, the model has final_norm: true"),
        ("all", False, "vision.features are patches, the model has all"),
    ):
        model.vision = load_vision_encoder(source, features, final_norm=final_norm)
        with pytest.raises(CheckpointError, match=words):
            load_open_flamingo(model, file)
    model.vision = load_vision_encoder(source, "patches", final_norm=False)
    load_open_flamingo(model, file)


def test_a_recipe_starts_from_a_checkpoint(tmp_path: Path) -> None:
    state = published(
        Sizes(
            93,
            64,
            128,
            inner=128,
            latents=16,
            layers=(0, 1, 2, 3),
            decoder="model.layers",
            table="model.embed_tokens",
        )
    )
    published_heads = [
        f"model.{part}.{key}"
        for part in ("connector", "fusion")
        for key in ("heads=2", "head_dim=64", "activation=gelu")
    ]
    recipe = load_recipe("tiny/flamingo", [f"model.weights={saved(state, tmp_path)}", *published_heads])
    model = build_model(recipe.model, weights="pretrained")
    assert isinstance(model, VisionLanguageModel)
    assert model.fusion is not None
    gates = [
        state[f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer.attn_gate"] for layer in range(4)
    ]
    assert [block.get_parameter("attention_gate") for block in model.fusion.blocks] == gates
    with pytest.raises(RecipeError, match=r"null, or a \.safetensors file with OpenFlamingo's keys"):
        load_recipe("tiny/flamingo", ["model.weights=llava-hf/llava-1.5-7b-hf"])
