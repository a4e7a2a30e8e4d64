"""Connectors with a fixed number of tokens: published counts, transformers' and torch's own modules, masks, frames."""

import pytest
import torch
from torch import Tensor, nn
from transformers import IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.latent_transformer import LatentBlock, LatentShape, LatentTransformer
from isthmus.parts.connectors.mapping_network import (
    FrameTransformer,
    MappingMLP,
    MappingShape,
    MappingTransformer,
)
from isthmus.parts.connectors.mlp import MLPConnector, MLPShape
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler, ResamplerLayer, ResamplerShape
from isthmus.parts.connectors.pooled_mlp import PooledMLP

VISUAL_TEXT = ResamplerShape(num_layers=4, num_heads=6, ffn_multiple=1, num_frames=500)
SMALL = ResamplerShape(num_latents=3, num_layers=2, num_heads=2, head_width=4, num_frames=5)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("context_norm", "expected"), [(True, 1_615_597_568), (False, 1_615_548_416)])
def test_the_latent_transformer_of_anymal(context_norm: bool, expected: int) -> None:
    with torch.device("meta"):
        shape = LatentShape(context_norm=context_norm)
        connector = LatentTransformer(vision_width=1024, language_width=4096, shape=shape)
    assert count(connector) == expected
    assert connector.num_tokens(257) == connector.num_tokens(577) == 64
    if context_norm:
        assert count(connector.blocks[0]) == 268_521_472


def test_its_baselines() -> None:
    with torch.device("meta"):
        linear = MLPConnector(vision_width=1024, language_width=4096, shape=MLPShape(norm=True))
        pooled = PooledMLP(vision_width=1024, language_width=4096, num_queries=64)
    assert count(linear) == 20_981_760
    assert count(pooled) == 88_377_344
    assert (linear.num_tokens(257), pooled.num_tokens(257)) == (257, 64)


def test_the_mapping_networks_of_clipcap() -> None:
    def transformer(vectors: int, prefix: int, width: int) -> MappingTransformer:
        shape = MappingShape(num_vectors=vectors, num_prefix=prefix)
        return MappingTransformer(vision_width=width, language_width=768, shape=shape)

    with torch.device("meta"):
        mlp = MappingMLP(vision_width=512, language_width=768, num_prefix=10)
        assert count(mlp) == 31_468_800
        assert mlp.num_tokens(1) == 10
        assert count(transformer(10, 10, 512)) == 41_745_408
        assert count(transformer(40, 40, 512)) == 53_587_968
        assert count(transformer(40, 40, 640)) == 57_520_128
        assert transformer(10, 40, 512).num_tokens(1) == 40


def test_the_connectors_of_visual_text_model() -> None:
    with torch.device("meta"):
        mapper = MappingMLP(vision_width=768, language_width=768, num_prefix=1, hidden=512)
        resampler = PerceiverResampler(vision_width=768, language_width=768, shape=VISUAL_TEXT)
        shape = TransformerShape(width=768, num_layers=8, num_heads=8, ffn_multiple=2048 / 768)
        frames = FrameTransformer(vision_width=768, language_width=768, shape=shape)
    assert [count(layer) for layer in mapper.layers] == [393_728, 0, 393_984]
    assert resampler.latents.numel() == 64 * 768
    assert resampler.frame_positions is not None
    assert resampler.latents.numel() + resampler.frame_positions.numel() == 433_152
    assert [count(layer) for layer in resampler.layers] == [2_363_904] * 4
    assert count(resampler.norm) == 1_536
    assert count(resampler.map) == 0
    assert count(mapper) + count(resampler) == 787_712 + 9_890_304
    assert count(frames) == 44_111_872
    assert (mapper.num_tokens(50), resampler.num_tokens(50), frames.num_tokens(50)) == (1, 64, 1)


CONNECTORS = {
    "resampler": PerceiverResampler(vision_width=8, language_width=12, shape=SMALL),
    "plain": PerceiverResampler(
        vision_width=8,
        language_width=12,
        shape=ResamplerShape(
            num_latents=3, num_layers=2, num_heads=2, head_width=4, latent_keys=False, final_norm=False
        ),
    ),
    "latents": LatentTransformer(
        vision_width=8, language_width=12, shape=LatentShape(num_latents=3, num_layers=2, num_heads=2)
    ),
    "pooled": PooledMLP(vision_width=8, language_width=12, num_queries=3, num_heads=2),
    "mlp": MappingMLP(vision_width=8, language_width=12, num_prefix=3),
    "transformer": MappingTransformer(
        vision_width=8, language_width=12, shape=MappingShape(num_prefix=3, num_layers=1, num_heads=2)
    ),
}


@pytest.mark.parametrize("name", CONNECTORS)
@pytest.mark.parametrize("patches", [1, 7, 50])
def test_any_number_of_patches_becomes_the_same_number_of_tokens(name: str, patches: int) -> None:
    connector: Connector = CONNECTORS[name]
    assert connector.num_tokens(patches) == 3
    assert connector(torch.randn(2, patches, 8)).shape == (2, 3, 12)


@pytest.mark.parametrize("name", ["resampler", "plain", "latents"])
def test_padded_patches_change_nothing(name: str) -> None:
    """Masked keys have weight exactly 0; sums over more terms are rounded otherwise: 7e-7 measured."""
    connector = CONNECTORS[name]
    assert isinstance(connector, PerceiverResampler | LatentTransformer)
    patches = torch.randn(2, 6, 8)
    mask = torch.tensor([[True] * 6 + [False] * 3] * 2)
    outcomes = [
        connector(torch.cat([patches, filler], dim=1), mask)
        for filler in (torch.zeros(2, 3, 8), 100 * torch.randn(2, 3, 8))
    ]
    assert torch.equal(*outcomes)
    assert (outcomes[0] - connector(patches)).abs().max() < 5e-6
    assert (connector(torch.cat([patches, patches[:, :3]], dim=1)) - outcomes[0]).abs().max() > 1e-4


def test_the_resampler_is_that_of_idefics() -> None:
    """With ReLU, a four times wider feed-forward and the same weights: 8e-7 measured."""
    torch.manual_seed(0)
    config = IdeficsConfig(vision_config={"embed_dim": 8})
    theirs = IdeficsPerceiverResampler(config, embed_dim=8, depth=2, n_heads=2, head_dim=6, n_latents=3)
    shape = ResamplerShape(num_latents=3, num_layers=2, num_heads=2, head_width=6, activation="relu")
    ours = PerceiverResampler(vision_width=8, language_width=8, shape=shape)
    weights: dict[str, Tensor] = {"latents": theirs.latents}
    norms = {"norm": theirs.layer_norm}
    for index, (attention, mlp) in enumerate(theirs.blocks):
        layer = f"layers.{index}"
        keys_and_values = torch.cat([attention.k_proj.weight, attention.v_proj.weight])
        weights |= {
            f"{layer}.attention.query.weight": attention.q_proj.weight,
            f"{layer}.attention.key_value.weight": keys_and_values,
            f"{layer}.attention.out.weight": attention.output_proj.weight,
            f"{layer}.ffn.1.weight": mlp.fc.weight,
            f"{layer}.ffn.3.weight": mlp.c_proj.weight,
        }
        norms |= {
            f"{layer}.norm_patches": attention.context_layer_norm,
            f"{layer}.norm_latents": attention.latents_layer_norm,
            f"{layer}.ffn.0": mlp.ln,
        }
    for norm in norms.values():
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for name, norm in norms.items():
        weights |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
    ours.load_state_dict(weights)
    patches = torch.randn(2, 9, 8)
    assert (ours(patches) - theirs(patches)).abs().max() < 1e-5


def test_without_latent_keys_a_layer_is_attention_over_patches_alone() -> None:
    """Against softmax written out, one head: 1e-7 measured."""
    torch.manual_seed(0)
    shape = ResamplerShape(
        num_heads=1, head_width=8, ffn_multiple=2, latent_keys=False, activation="squared_relu"
    )
    layer = ResamplerLayer(width=8, shape=shape)
    latents, patches = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    key, value = layer.attention.key_value(layer.norm_patches(patches[0])).chunk(2, dim=-1)
    query = layer.attention.query(layer.norm_latents(latents[0]))
    expected = latents[0] + layer.attention.out((query @ key.T / 8**0.5).softmax(-1) @ value)
    hidden = layer.ffn[1](layer.ffn[0](expected)).clamp(min=0) ** 2
    expected = expected + layer.ffn[3](hidden)
    assert (layer(latents, patches)[0] - expected).abs().max() < 1e-5


def attention_of(
    projection: nn.Linear, back: nn.Linear, query: nn.Linear | None = None
) -> nn.MultiheadAttention:
    """torch's own attention with the weights of ours, two heads."""
    width = back.out_features
    theirs = nn.MultiheadAttention(width, 2, batch_first=True)
    layers = [projection] if query is None else [query, projection]
    theirs.in_proj_weight.data = torch.cat([layer.weight for layer in layers])
    theirs.in_proj_bias.data = torch.cat([layer.bias for layer in layers])
    theirs.out_proj.load_state_dict(back.state_dict())
    return theirs


def test_a_latent_block_is_made_of_torchs_own_attention() -> None:
    """Pre-norm cross-attention, self-attention, feed-forward: 2e-7 measured."""
    torch.manual_seed(0)
    block = LatentBlock(width=12, shape=LatentShape(num_heads=2))
    cross = attention_of(
        block.cross_attention.key_value, block.cross_attention.out, block.cross_attention.query
    )
    own = attention_of(block.self_attention.qkv, block.self_attention.out)
    latents, patches = torch.randn(2, 3, 12), torch.randn(2, 7, 12)
    mask = torch.arange(7).expand(2, 7) < 5
    context = block.norm_patches(patches)
    expected = latents + cross(block.norm_latents(latents), context, context, key_padding_mask=~mask)[0]
    normed = block.norm_self(expected)
    expected = expected + own(normed, normed, normed)[0]
    expected = expected + block.ffn(block.norm_ffn(expected))
    assert (block(latents, patches, mask) - expected).abs().max() < 1e-5


def test_queries_pool_by_torchs_own_attention() -> None:
    torch.manual_seed(0)
    connector = PooledMLP(vision_width=8, language_width=12, num_queries=3, num_heads=2)
    attention = connector.attention
    theirs = attention_of(attention.key_value, attention.out, attention.query)
    patches = torch.randn(2, 7, 8)
    tokens = connector.tokens(patches)
    expected = connector.norm(theirs(connector.queries.expand(2, -1, -1), tokens, tokens)[0])
    assert (connector(patches) - expected).abs().max() < 1e-5


def test_mapping_networks_are_their_formulas() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 5, 8)
    mean = patches.mean(dim=1)
    mlp = MappingMLP(vision_width=8, language_width=6, num_prefix=4)
    assert mlp.layers[0].out_features == 12  # half of the prefix
    flat = mlp.layers[2](torch.tanh(mlp.layers[0](mean)))
    assert torch.equal(mlp(patches), flat.reshape(2, 4, 6))
    shape = MappingShape(num_prefix=3, num_vectors=2, num_layers=1, num_heads=2)
    mapper = MappingTransformer(vision_width=8, language_width=6, shape=shape)
    tokens = torch.cat([mapper.map(mean).reshape(2, 2, 6), mapper.prefix.expand(2, -1, -1)], dim=1)
    block = mapper.transformer.blocks[0]
    theirs = nn.MultiheadAttention(6, 2, batch_first=True)
    theirs.in_proj_weight.data = block.attention.qkv.weight
    nn.init.zeros_(theirs.in_proj_bias)
    theirs.out_proj.load_state_dict(block.attention.out.state_dict())
    normed = block.norm1(tokens)
    expected = tokens + theirs(normed, normed, normed)[0]
    expected = expected + block.ffn[2](block.ffn[0](block.norm2(expected)).relu())
    assert (mapper(patches) - expected[:, 2:]).abs().max() < 1e-5
    assert block.attention.qkv.bias is None


def test_frames_and_padded_frames() -> None:
    """Padded frames change nothing (2e-7 measured), frames are told apart, and a still picture is one frame."""
    torch.manual_seed(0)
    resampler = CONNECTORS["resampler"]
    assert isinstance(resampler, PerceiverResampler)
    video = torch.randn(2, 3, 4, 8)
    whole = resampler.summarise(video)
    assert whole.shape == (2, 3, 12)
    padded = torch.cat([video, 50 * torch.randn(2, 2, 4, 8)], dim=1)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    assert (resampler.summarise(padded, mask) - whole).abs().max() < 5e-6
    assert (resampler.summarise(video.flip(1)) - whole).abs().max() > 1e-3
    assert torch.equal(resampler(video[:, 0]), resampler.summarise(video[:, :1]))


def test_more_frames_than_positions_are_refused() -> None:
    with torch.device("meta"):
        resampler = PerceiverResampler(vision_width=768, language_width=768, shape=VISUAL_TEXT)
        assert resampler.summarise(torch.empty(1, 500, 2, 768)).shape == (1, 64, 768)
        with pytest.raises(
            ValueError, match="has 501 frames, but this connector has learned positions for 500"
        ):
            resampler.summarise(torch.empty(1, 501, 2, 768))
    plain = CONNECTORS["plain"]
    assert isinstance(plain, PerceiverResampler)
    with pytest.raises(ValueError, match="2 frames came to a connector without frame positions"):
        plain.summarise(torch.randn(1, 2, 4, 8))


def test_a_mapper_gives_its_prefix_for_each_frame() -> None:
    video = torch.randn(2, 3, 4, 8)
    mlp = CONNECTORS["mlp"]
    assert isinstance(mlp, MappingMLP)
    frames = mlp.of_frames(video)
    assert frames.shape == (2, 9, 12)
    assert (frames[:, 3:6] - mlp(video[:, 1])).abs().max() < 1e-6
    shape = TransformerShape(width=8, num_layers=1, num_heads=2)
    readers = FrameTransformer(vision_width=8, language_width=8, shape=shape)
    mask = torch.tensor([[True, True, False]] * 2)
    # Frames that are not there are not read: no difference measured.
    assert (readers.of_frames(video, mask)[:, :2] - readers.of_frames(video[:, :2])).abs().max() < 1e-6
    assert readers(video[:, 0]).shape == (2, 1, 8)
    with pytest.raises(ValueError, match="the encoder gives 9 and the language model takes 8"):
        FrameTransformer(vision_width=9, language_width=8, shape=shape)


@pytest.mark.parametrize("kind", ["latents", "pooled"])
def test_heads_must_divide_the_width(kind: str) -> None:
    with pytest.raises(ValueError, match="a width of 10 cannot be split over 4 heads"):
        if kind == "latents":
            LatentTransformer(vision_width=4, language_width=10, shape=LatentShape(num_heads=4))
        else:
            PooledMLP(vision_width=4, language_width=10, num_queries=2, num_heads=4)
