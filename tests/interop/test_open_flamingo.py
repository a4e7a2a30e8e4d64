"""OpenFlamingo's names and its arithmetic, written out tensor by tensor, against the parts that are filled from them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from isthmus.build.model import build_model
from isthmus.config.load import load_recipe
from isthmus.core.errors import CheckpointError, RecipeError
from isthmus.interop.open_flamingo import load_open_flamingo
from isthmus.models.vision_language_model import AttentionPath, VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler, ResamplerShape
from isthmus.parts.fusion.gated_block import GatedBlock, GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.language.token_rows import TokenRows
from isthmus.parts.vision.vit import ViT

VOCABULARY, WIDTH, SIGHT, HEADS, HEAD = 20, 24, 16, 2, 6
LATENTS, LAYERS, EVERY = 5, 4, 2
State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of what is published; of `made` by default."""

    vocabulary: int = VOCABULARY
    width: int = WIDTH
    sight: int = SIGHT
    inner: int = HEADS * HEAD
    latents: int = LATENTS
    layers: tuple[int, ...] = (1, 3)
    decoder: str = "transformer.h"
    table: str = "transformer.wte"


def made() -> VisionLanguageModel:
    torch.manual_seed(0)
    network = GPT2LMHeadModel(
        GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=2, vocab_size=VOCABULARY, n_positions=32)
    )
    shape = ResamplerShape(
        num_latents=LATENTS, num_layers=2, num_heads=HEADS, head_width=HEAD, ffn_multiple=2
    )
    gated = GatedShape(num_heads=HEADS, head_width=HEAD, ffn_multiple=2)
    fusion = GatedCrossAttention(
        network=network, every=EVERY, placement="last", width=WIDTH, context_width=SIGHT, shape=gated
    )
    path = AttentionPath(
        connector=PerceiverResampler(vision_width=SIGHT, language_width=SIGHT, shape=shape), fusion=fusion
    )
    return VisionLanguageModel(
        vision=ViT(image_size=16, patch=8, shape=TransformerShape(width=SIGHT, num_layers=1, num_heads=2)),
        connector=None,
        language=LanguageModel(network=network, rows=TokenRows(network=network, num_rows=2)),
        placeholder_id=VOCABULARY,
        attention=path,
    ).eval()


def published(sizes: Sizes | None = None) -> State:
    """Random weights under OpenFlamingo's names."""
    generator = torch.Generator().manual_seed(1)
    sizes = sizes or Sizes()
    inner, sight, width = sizes.inner, sizes.sight, sizes.width
    state: State = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    def norm(name: str, size: int) -> None:
        add(f"{name}.weight", size)
        add(f"{name}.bias", size)

    def feed_forward(name: str, size: int) -> None:
        norm(f"{name}.0", size)
        add(f"{name}.1.weight", 2 * size, size)
        add(f"{name}.3.weight", size, 2 * size)

    add("perceiver.latents", sizes.latents, sight)
    norm("perceiver.norm", sight)
    for layer in range(2):
        place = f"perceiver.layers.{layer}"
        norm(f"{place}.0.norm_media", sight)
        norm(f"{place}.0.norm_latents", sight)
        add(f"{place}.0.to_q.weight", inner, sight)
        add(f"{place}.0.to_kv.weight", 2 * inner, sight)
        add(f"{place}.0.to_out.weight", sight, inner)
        feed_forward(f"{place}.1", sight)
    for layer in sizes.layers:
        place = f"lang_encoder.{sizes.decoder}.{layer}.gated_cross_attn_layer"
        add(f"{place}.attn_gate", 1)
        add(f"{place}.ff_gate", 1)
        norm(f"{place}.attn.norm", width)
        add(f"{place}.attn.to_q.weight", inner, width)
        add(f"{place}.attn.to_kv.weight", 2 * inner, sight)
        add(f"{place}.attn.to_out.weight", width, inner)
        feed_forward(f"{place}.ff", width)
    add(f"lang_encoder.{sizes.table}.weight", sizes.vocabulary + 3, width)
    return state


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


def saved(state: State, folder: Path) -> Path:
    file = folder / "checkpoint.safetensors"
    save_file(state, file)
    return file


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
    # Largest differences measured: 1.8e-7 here, 2.4e-7 for the blocks.
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
    recipe = load_recipe("tiny/flamingo", [f"model.weights={saved(state, tmp_path)}"])
    model = build_model(recipe.model, weights="pretrained")
    assert isinstance(model, VisionLanguageModel)
    assert model.fusion is not None
    gates = [
        state[f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer.attn_gate"] for layer in range(4)
    ]
    assert [block.get_parameter("attention_gate") for block in model.fusion.blocks] == gates
    with pytest.raises(RecipeError, match=r"null, or a \.safetensors file with OpenFlamingo's keys"):
        load_recipe("tiny/flamingo", ["model.weights=llava-hf/llava-1.5-7b-hf"])
