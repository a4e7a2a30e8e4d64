"""Where gated blocks stand, how large they are, and which picture each position of a text sees."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MptConfig, MptForCausalLM

from isthmus.core.errors import DataError
from isthmus.parts.fusion.gated_block import GatedBlock, GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention, block_layers, decoder_of
from isthmus.parts.fusion.media import pictures_of_rows, pictures_seen


def test_both_rules_for_layers() -> None:
    assert block_layers(32, every=4, placement="first") == (0, 4, 8, 12, 16, 20, 24, 28)
    assert block_layers(32, every=4, placement="last") == (3, 7, 11, 15, 19, 23, 27, 31)
    assert len(block_layers(40, every=4, placement="first")) == 10  # Flamingo-9B
    assert len(block_layers(80, every=7, placement="first")) == 12  # Flamingo-80B
    assert block_layers(12, every=1, placement="last") == tuple(range(12))
    with pytest.raises(ValueError, match="the language model has 12; choose a smaller"):
        block_layers(12, every=13, placement="last")


@pytest.mark.parametrize(
    ("width", "context", "shape", "count"),
    [
        (2048, 1024, GatedShape(), 36_708_354),
        (2560, 1024, GatedShape(), 56_109_058),
        (4096, 1024, GatedShape(), 139_476_994),
        (768, 768, GatedShape(num_heads=6, ffn_multiple=1), 2_362_370),
    ],
)
def test_published_parameter_counts_of_a_block(
    width: int, context: int, shape: GatedShape, count: int
) -> None:
    with torch.device("meta"):
        block = GatedBlock(width=width, context_width=context, shape=shape)
    assert sum(parameter.numel() for parameter in block.parameters()) == count


@pytest.mark.parametrize(
    ("every", "count"),
    [
        (1, 152_788_248),
        (2, 138_614_028),
        (3, 133_889_288),
        (4, 131_526_918),
        (6, 129_164_548),
        (12, 126_802_178),
    ],
)
def test_gpt2_with_gated_cross_attention(every: int, count: int) -> None:
    with torch.device("meta"):
        network = GPT2LMHeadModel(GPT2Config())
        fusion = GatedCrossAttention(
            network=network,
            every=every,
            placement="first",
            width=768,
            context_width=768,
            shape=GatedShape(num_heads=6, ffn_multiple=1),
        )
    held = [*network.parameters(), *fusion.parameters()]
    assert sum(parameter.numel() for parameter in held) == count


def test_mpt_7b_with_openflamingo_blocks() -> None:
    with torch.device("meta"):
        network = MptForCausalLM(
            MptConfig(d_model=4096, n_layers=32, n_heads=32, vocab_size=50432, expansion_ratio=4)
        )
        fusion = GatedCrossAttention(
            network=network, every=4, placement="last", width=4096, context_width=1024, shape=GatedShape()
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_649_286_656
    assert sum(parameter.numel() for parameter in fusion.parameters()) == 1_178_834_960 - 63_019_008


def test_an_encoder_without_layers_is_refused() -> None:
    network = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    network.config.num_hidden_layers = 9
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no list of 9 decoder layers"):
        decoder_of(network)


def test_each_position_sees_the_last_picture_that_began() -> None:
    places = torch.tensor([[0, 1, 1, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1]]).bool()
    seen = pictures_seen(places, images_per_row=(2, 2), tokens_per_image=(2, 2, 1, 2))
    assert seen.tolist() == [[0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 1, 2, 2]]
    assert not pictures_seen(places[:, :1], images_per_row=(0, 0), tokens_per_image=()).any()


def test_one_picture_without_a_place_is_seen_by_the_whole_row() -> None:
    places = torch.zeros(2, 3, dtype=torch.bool)
    assert pictures_seen(places, images_per_row=(1, 0), tokens_per_image=(0,)).tolist() == [[1] * 3, [0] * 3]
    with pytest.raises(DataError, match="a row has 2 pictures, but this model marks none"):
        pictures_seen(places, images_per_row=(2, 0), tokens_per_image=(0, 0))


def test_places_and_layout_must_agree() -> None:
    places = torch.tensor([[0, 1, 1, 0]]).bool()
    with pytest.raises(ValueError, match="have 2 image placeholders, but their layout has 1"):
        pictures_seen(places, images_per_row=(1,), tokens_per_image=(1,))


def test_visual_tokens_are_sorted_into_rows() -> None:
    tokens = torch.arange(6.0).reshape(3, 1, 2)
    sorted_rows = pictures_of_rows(tokens, images_per_row=(1, 0, 2), seen=torch.zeros(3, 1, dtype=torch.long))
    expected = [[[0, 1], [0, 0]], [[0, 0], [0, 0]], [[2, 3], [4, 5]]]
    assert sorted_rows.tokens.squeeze(2).tolist() == expected
