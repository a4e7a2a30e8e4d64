"""Connectors: published parameter counts, numbers of tokens, and brute-force twins."""

import pytest
import torch
from torch import nn

from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.linear import LinearConnector
from isthmus.parts.connectors.mlp import MLPConnector, MLPShape
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler, ResamplerLayer, ResamplerShape
from isthmus.parts.connectors.pixel_shuffle import PixelShuffleConnector


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        assert count(LinearConnector(vision_width=1024, language_width=4096)) == 4_198_400
        assert count(LinearConnector(vision_width=1024, language_width=5120)) == 5_248_000
        assert count(MLPConnector(vision_width=1024, language_width=4096)) == 20_979_712
        assert count(MLPConnector(vision_width=1024, language_width=5120)) == 31_467_520
        assert count(PixelShuffleConnector(vision_width=768, language_width=576, factor=2)) == 1_769_472
        flamingo = PerceiverResampler(vision_width=1024, language_width=1024, shape=ResamplerShape())
        assert count(flamingo) == 63_019_008
        assert (
            count(ResamplerLayer(width=768, shape=ResamplerShape(num_heads=6, ffn_multiple=1))) == 2_363_904
        )


@pytest.mark.parametrize(
    ("connector", "patches", "tokens"),
    [
        (LinearConnector(vision_width=6, language_width=8), 49, 49),
        (
            MLPConnector(
                vision_width=6,
                language_width=8,
                shape=MLPShape(depth=3, hidden=5, norm=True),
                num_positions=49,
            ),
            49,
            49,
        ),
        (MLPConnector(vision_width=6, language_width=8, pool_side=4, num_positions=16), 49, 16),
        (PixelShuffleConnector(vision_width=6, language_width=8, factor=2), 36, 9),
        (
            PerceiverResampler(
                vision_width=6,
                language_width=8,
                shape=ResamplerShape(num_latents=3, num_layers=2, num_heads=2, head_width=4),
            ),
            49,
            3,
        ),
    ],
)
def test_every_connector_states_how_many_tokens_it_gives(
    connector: Connector, patches: int, tokens: int
) -> None:
    assert connector.num_tokens(patches) == tokens
    assert connector(torch.randn(2, patches, 6)).shape == (2, tokens, 8)


def test_mlp_is_what_llava_1_5_uses() -> None:
    torch.manual_seed(0)
    connector = MLPConnector(vision_width=4, language_width=6)
    twin = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 6))
    twin.load_state_dict(connector.layers.state_dict())
    patches = torch.randn(2, 5, 4)
    assert torch.equal(connector(patches), twin(patches))


def test_pixel_shuffle_joins_neighbours_in_the_stated_order() -> None:
    connector = PixelShuffleConnector(vision_width=2, language_width=8, factor=2)
    connector.map.weight.data = torch.eye(8)
    patches = torch.arange(32.0).reshape(1, 16, 2)
    grid = patches.reshape(4, 4, 2)
    for row in range(2):
        for column in range(2):
            expected = torch.cat([grid[2 * row + r, 2 * column + c] for r in range(2) for c in range(2)])
            assert torch.equal(connector(patches)[0, 2 * row + column], expected)


@pytest.mark.parametrize(
    ("patches", "said"), [(50, "50 tokens are no square grid"), (49, "gives 49 patches, 7 a side")]
)
def test_pixel_shuffle_refuses_grids_it_cannot_cut(patches: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PixelShuffleConnector(vision_width=2, language_width=2, factor=2).num_tokens(patches)


def test_learned_positions_refuse_another_grid() -> None:
    with pytest.raises(ValueError, match="49 learned positions but 64 tokens would need one"):
        MLPConnector(vision_width=2, language_width=2, num_positions=49).num_tokens(64)


@pytest.mark.parametrize(
    ("patches", "said"),
    [(50, "50 tokens are no square grid"), (9, "to 4 tokens a side, but .* gives 3 patches")],
)
def test_an_mlp_averages_square_grids_and_never_to_more_tokens(patches: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MLPConnector(vision_width=2, language_width=2, pool_side=4).num_tokens(patches)


def test_resampler_latents_are_keys_too() -> None:
    """With patches that carry nothing, latents still exchange through their own keys and values (Flamingo, Figure 5)."""
    torch.manual_seed(0)
    layer = ResamplerLayer(width=8, shape=ResamplerShape(num_heads=2, head_width=4, ffn_multiple=1))
    latents, patches = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    queries = layer.norm_latents(latents)[0]
    context = torch.cat([layer.norm_patches(patches)[0], queries])
    key, value = layer.attention.key_value(context).chunk(2, dim=-1)
    query = layer.attention.query(queries)
    mixed = torch.cat(
        [
            (query[:, part] @ key[:, part].T / 2).softmax(-1) @ value[:, part]
            for part in (slice(0, 4), slice(4, 8))
        ],
        dim=-1,
    )
    expected = latents[0] + layer.attention.out(mixed)
    expected = expected + layer.ffn(expected)
    assert torch.allclose(layer(latents, patches)[0], expected, atol=1e-6)


def test_pixel_shuffle_with_an_mlp_is_internvls() -> None:
    """Norm, linear, GELU, linear on 2 x 2 neighbours, written out by hand; then one vector for each place."""
    torch.manual_seed(0)
    connector = PixelShuffleConnector(
        vision_width=3,
        language_width=5,
        factor=2,
        mlp=MLPShape(hidden=7, norm=True),
        num_positions=4,
    )
    patches = torch.randn(2, 16, 3)
    weights = connector.state_dict()
    found = connector(patches)
    for row in range(2):
        for column in range(2):
            corners = [(2 * row + down) * 4 + 2 * column + right for down in range(2) for right in range(2)]
            x = torch.cat([patches[:, corner] for corner in corners], dim=1)
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            x = x * weights["map.norm.weight"] + weights["map.norm.bias"]
            x = x @ weights["map.layers.0.weight"].T + weights["map.layers.0.bias"]
            x = x * (1 + torch.erf(x / 2**0.5)) / 2
            x = x @ weights["map.layers.2.weight"].T + weights["map.layers.2.bias"]
            expected = x + weights["map.positions"][2 * row + column]
            torch.testing.assert_close(found[:, 2 * row + column], expected, atol=1e-5, rtol=1e-5)
