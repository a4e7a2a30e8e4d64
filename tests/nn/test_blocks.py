"""Attention, transformer, positions, patches and pooling against PyTorch's own modules and brute force."""

import pytest
import torch
from torch import nn

from isthmus.core.sizes import Size
from isthmus.nn.attention import CrossAttention, SelfAttention
from isthmus.nn.patches import PatchEmbedding
from isthmus.nn.pooling import AttentionPool, masked_mean, pool_grid
from isthmus.nn.positions import GridPositions
from isthmus.nn.transformer import Block, Transformer, TransformerShape

CLOSE = 2e-6
"""Largest difference seen: 4.2e-7 (float32, width 32)."""


def test_self_attention_equals_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(width=32, num_heads=4), nn.MultiheadAttention(32, 4, batch_first=True)
    assert theirs.in_proj_weight is not None
    theirs.in_proj_weight.data.copy_(ours.qkv.weight)
    theirs.in_proj_bias.data.copy_(ours.qkv.bias)
    theirs.out_proj.weight.data.copy_(ours.out.weight)
    theirs.out_proj.bias.data.copy_(ours.out.bias)
    tokens = torch.randn(3, 7, 32)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    expected, _ = theirs(tokens, tokens, tokens, key_padding_mask=~mask)
    assert (ours(tokens, mask) - expected).abs().max() < CLOSE
    blind = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected, _ = theirs(tokens, tokens, tokens, attn_mask=blind)
    assert (ours(tokens, None, causal=True) - expected).abs().max() < CLOSE
    assert (ours(tokens, torch.ones_like(mask), causal=True) - expected).abs().max() < CLOSE


def test_block_equals_torchs_pre_norm_layer() -> None:
    torch.manual_seed(0)
    ours = Block(TransformerShape(width=32, num_layers=1, num_heads=4, norm_eps=1e-5)).eval()
    theirs = nn.TransformerEncoderLayer(
        32, 4, 128, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.attention.qkv.weight,
            "self_attn.in_proj_bias": ours.attention.qkv.bias,
            "self_attn.out_proj.weight": ours.attention.out.weight,
            "self_attn.out_proj.bias": ours.attention.out.bias,
            "linear1.weight": ours.ffn[0].weight,
            "linear1.bias": ours.ffn[0].bias,
            "linear2.weight": ours.ffn[2].weight,
            "linear2.bias": ours.ffn[2].bias,
            "norm1.weight": ours.norm1.weight,
            "norm1.bias": ours.norm1.bias,
            "norm2.weight": ours.norm2.weight,
            "norm2.bias": ours.norm2.bias,
        }
    )
    tokens = torch.randn(2, 5, 32)
    assert (ours(tokens) - theirs(tokens)).abs().max() < CLOSE


def test_hidden_tokens_change_nothing() -> None:
    torch.manual_seed(0)
    stack = Transformer(TransformerShape(width=16, num_layers=2, num_heads=2)).eval()
    tokens = torch.randn(1, 6, 16)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    other = tokens.clone()
    other[:, 4:] = 100.0
    assert torch.equal(stack(tokens, mask)[:, :4], stack(other, mask)[:, :4])


def test_cross_attention_sees_only_what_the_mask_allows() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(width=16, context_width=8, num_heads=2, head_width=4)
    assert not [name for name, _ in attention.named_parameters() if name.endswith("bias")]
    queries, context = torch.randn(1, 3, 16), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    assert torch.allclose(attention(queries, context, mask), attention(queries, context[:, :3]), atol=1e-6)


def test_patches_come_row_by_row() -> None:
    embedding = PatchEmbedding(patch=2, width=1, channels=1, bias=False)
    embedding.projection.weight.data.fill_(0.25)
    picture = torch.arange(24.0).reshape(1, 1, 4, 6)
    expected = [picture[0, 0, r : r + 2, c : c + 2].mean().item() for r in (0, 2) for c in (0, 2, 4)]
    assert embedding(picture).flatten().tolist() == expected


def test_a_patch_that_does_not_divide_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="30x32 pixels cannot be cut into patches of 8"):
        PatchEmbedding(patch=8, width=4)(torch.zeros(1, 3, 32, 30))


def test_positions_are_interpolated_not_sliced() -> None:
    positions = GridPositions(grid=Size(4, 4), width=2)
    assert positions(Size(4, 4)) is positions.table
    positions.table.data = torch.arange(4.0).repeat_interleave(4).unsqueeze(1).repeat(1, 2)
    wide = positions(Size(4, 8)).reshape(4, 8, 2)
    assert torch.allclose(wide[:, 0], wide[:, 7], atol=1e-5), "rows stay rows when only the width grows"
    assert (wide[1:, 0] > wide[:-1, 0]).all()


def test_masked_mean_ignores_padding() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [99.0]], [[4.0], [99.0], [99.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(tokens, mask).tolist() == [[2.0], [0.0]]


def test_attention_pool_is_a_weighted_mean_of_tokens() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(width=8, num_heads=2)
    tokens = torch.randn(3, 5, 8)
    same = tokens[:, :1].expand(-1, 5, -1)
    assert torch.allclose(pool(same), same[:, :2], atol=1e-6), "equal tokens pool to themselves"
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 4 + [True]])
    pooled = pool(tokens, mask)
    for row in range(3):
        for head in range(2):
            seen = tokens[row, mask[row]]
            weights = (seen @ pool.query[head] / 8**0.5).softmax(0)
            assert torch.allclose(pooled[row, head], weights @ seen, atol=1e-6)


def test_pooling_a_grid_averages_windows() -> None:
    patches = torch.arange(32.0).reshape(1, 16, 2)
    grid = patches.reshape(4, 4, 2)
    expected = torch.stack(
        [grid[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean(dim=(0, 1)) for r in (0, 1) for c in (0, 1)]
    )
    assert torch.equal(pool_grid(patches, 2)[0], expected)
    with pytest.raises(ValueError, match="15 tokens are no square grid"):
        pool_grid(patches[:, :15], 2)


@pytest.mark.parametrize(
    "how", ["plain", "masked", "causal", "causal and masked", "biased", "key without bias"]
)
def test_a_transformer_that_lets_one_token_leave_gives_what_it_has_there(how: str) -> None:
    torch.manual_seed(0)
    shape = TransformerShape(width=32, num_layers=2, num_heads=4, key_bias=how != "key without bias")
    transformer, tokens, places = (
        Transformer(shape),
        torch.randn(3, 7, 32, requires_grad=True),
        torch.tensor([0, 6, 3]),
    )
    mask = torch.ones(3, 7, dtype=torch.bool) if "masked" in how else None
    if mask is not None:
        mask[2, 4:], mask[1, 2] = False, False
    bias = torch.randn(4, 7, 7) if how == "biased" else None
    learned = [tokens, *transformer.parameters()]
    whole = transformer(tokens, mask, causal="causal" in how, bias=bias)[torch.arange(3), places]
    alone = transformer(tokens, mask, causal="causal" in how, bias=bias, places=places)[:, 0]
    assert (whole - alone).abs().max() < CLOSE
    weights = torch.linspace(-1, 1, whole.numel()).reshape(whole.shape)
    expected, found = (torch.autograd.grad((one * weights).sum(), learned) for one in (whole, alone))
    # Largest difference of gradients up to 30: 9e-6.
    assert max((one - other).abs().max() for one, other in zip(expected, found, strict=True)) < 5e-5
