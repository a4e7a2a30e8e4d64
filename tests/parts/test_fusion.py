"""Gated cross-attention in real decoders: identity at the start, which picture a word sees, caches, checkpointing, counts."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from isthmus.core.errors import DataError
from isthmus.parts.fusion.gated_block import GatedBlock, GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention, block_layers, decoder_of
from isthmus.parts.fusion.media import Pictures, pictures_of_rows, pictures_seen

WIDTH, CONTEXT, LAYERS, VOCABULARY = 16, 12, 4, 40
SHAPE = GatedShape(num_heads=2, head_width=4, ffn_multiple=2)


def network_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    match family:
        case "gpt2":
            config = GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=2, vocab_size=VOCABULARY, n_positions=64)
            return GPT2LMHeadModel(config).eval()
        case "llama":
            config = LlamaConfig(
                hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32,
                vocab_size=VOCABULARY,
            )  # fmt: skip
            return LlamaForCausalLM(config).eval()
        case "opt":
            config = OPTConfig(
                hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, ffn_dim=32,
                vocab_size=VOCABULARY, word_embed_proj_dim=WIDTH, max_position_embeddings=64, dropout=0.0,
            )  # fmt: skip
            return OPTForCausalLM(config).eval()
        case "mpt":
            config = MptConfig(
                d_model=WIDTH, n_layers=LAYERS, n_heads=2, vocab_size=VOCABULARY, max_seq_len=64
            )
            return MptForCausalLM(config).eval()
        case _:
            config = GPTNeoXConfig(
                hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32,
                vocab_size=VOCABULARY,
            )  # fmt: skip
            return GPTNeoXForCausalLM(config).eval()


def fused(network: PreTrainedModel, *, every: int = 2, opened: bool = True) -> GatedCrossAttention:
    torch.manual_seed(1)
    fusion = GatedCrossAttention(
        network=network, every=every, placement="first", width=WIDTH, context_width=CONTEXT, shape=SHAPE
    )
    if opened:
        for block in fusion.blocks:
            assert isinstance(block, GatedBlock)
            for parameter in block.parameters():
                nn.init.normal_(parameter, std=0.5)
    return fusion


def pictures(rows: int = 2, *, per_row: int = 2, positions: int = 6) -> Pictures:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(rows, per_row, 3, CONTEXT, generator=generator)
    seen = torch.tensor([[0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 2]])[:rows, :positions]
    return Pictures(tokens=tokens, seen=seen)


IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
FAMILIES = ("gpt2", "llama", "opt", "mpt", "neox")


@pytest.mark.parametrize("family", FAMILIES)
def test_shut_gates_give_the_plain_model_bit_for_bit(family: str) -> None:
    network = network_of(family)
    plain = network(input_ids=IDS).logits
    fusion = fused(network, opened=False)
    with fusion.seeing(pictures()):
        assert torch.equal(network(input_ids=IDS).logits, plain)
    assert fusion.layers == (0, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_open_gates_change_only_what_follows_a_picture(family: str) -> None:
    network = network_of(family)
    fusion = fused(network)
    seen = pictures()
    other = Pictures(tokens=seen.tokens.flip(0), seen=seen.seen)
    logits = []
    for shown in (seen, other):
        with fusion.seeing(shown):
            logits.append(network(input_ids=IDS).logits)
    difference = (logits[0] - logits[1]).abs().amax(dim=-1)
    before = seen.seen == 0
    assert difference[before].max() == 0
    assert difference[~before].min() > 1e-4


def test_a_block_is_its_formula() -> None:
    """Against a loop over positions and heads, each reading only the tokens of its own picture: 2e-6 measured."""
    torch.manual_seed(3)
    block = GatedBlock(width=WIDTH, context_width=CONTEXT, shape=SHAPE)
    for gate in (block.attention_gate, block.ffn_gate):
        nn.init.constant_(gate, 0.7)
    shown = pictures()
    hidden = torch.randn(2, 6, WIDTH)
    visual = shown.tokens.flatten(1, 2)
    seen = shown.seen[:, :, None] == torch.tensor([1, 1, 1, 2, 2, 2])
    given = block(hidden, *block.keys_and_values(visual), seen)
    for row in range(2):
        for position in range(6):
            start = hidden[row, position]
            query = block.attention.query(block.norm(start))
            number = int(shown.seen[row, position])
            read = torch.zeros(WIDTH)
            if number:
                key, value = block.attention.key_value(shown.tokens[row, number - 1]).chunk(2, dim=-1)
                heads = [
                    (query[part] @ key[:, part].T / 2).softmax(-1) @ value[:, part]
                    for part in (slice(0, 4), slice(4, 8))
                ]
                read = block.attention.out(torch.cat(heads))
            state = start + torch.tanh(torch.tensor(0.7)) * read
            expected = state + torch.tanh(torch.tensor(0.7)) * block.ffn(state)
            assert (given[row, position] - expected).abs().max() < 5e-6


def test_a_word_without_a_picture_gets_exactly_zero_from_the_attention() -> None:
    block = GatedBlock(width=WIDTH, context_width=CONTEXT, shape=SHAPE)
    nn.init.constant_(block.attention_gate, 5.0)  # the feed-forward's gate stays shut
    hidden = torch.randn(2, 6, WIDTH)
    nothing = torch.zeros(2, 6, 4, dtype=torch.bool)
    key, value = block.keys_and_values(torch.randn(2, 4, CONTEXT))
    assert torch.equal(block(hidden, key, value, nothing), hidden)


def test_rows_without_pictures_give_finite_gradients() -> None:
    network = network_of("llama")
    fusion = fused(network)
    none = pictures_of_rows(torch.zeros(0, 3, CONTEXT), images_per_row=(0, 0), seen=torch.zeros_like(IDS))
    mixed = pictures_of_rows(
        torch.randn(1, 3, CONTEXT),
        images_per_row=(0, 1),
        seen=torch.tensor([[0] * 6, [0, 1, 1, 1, 1, 1]]),
    )
    logits = []
    for shown in (none, mixed):
        with fusion.seeing(shown):
            logits.append(network(input_ids=IDS).logits)
        logits[-1].sum().backward()
        assert all(
            bool(parameter.grad.isfinite().all())
            for parameter in fusion.parameters()
            if parameter.grad is not None
        )
    # A row without pictures is the same beside one with a picture: 3e-7 measured.
    assert (logits[0][0] - logits[1][0]).abs().max() < 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_passes_equal_one_pass(family: str) -> None:
    """Largest difference measured over the five families: 6e-7."""
    network = network_of(family)
    fusion = fused(network)
    shown = pictures()
    with torch.no_grad(), fusion.seeing(shown):
        whole = network(input_ids=IDS).logits
        first = network(input_ids=IDS[:, :2], use_cache=True)
        cache, parts = first.past_key_values, [first.logits]
        for position in range(2, 6):
            mask = torch.ones(2, position + 1, dtype=torch.long)
            step = network(
                input_ids=IDS[:, position : position + 1],
                past_key_values=cache,
                attention_mask=mask,
                use_cache=True,
            )
            cache = step.past_key_values
            parts.append(step.logits)
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 5e-6


def test_words_after_the_prompt_see_what_its_last_word_sees() -> None:
    network = network_of("gpt2")
    fusion = fused(network)
    shown = pictures(positions=4)
    longer = Pictures(
        tokens=shown.tokens, seen=torch.cat([shown.seen, shown.seen[:, -1:].expand(-1, 2)], dim=1)
    )
    logits = []
    for one in (shown, longer):
        with fusion.seeing(one):
            logits.append(network(input_ids=IDS).logits)
    assert torch.equal(*logits)


def test_beams_of_a_row_see_its_pictures() -> None:
    """Rows repeated three times for their beams: 2e-7 measured."""
    network = network_of("llama")
    fusion = fused(network)
    with torch.no_grad(), fusion.seeing(pictures()):
        once = network(input_ids=IDS).logits
        thrice = network(input_ids=IDS.repeat_interleave(3, dim=0)).logits
    assert (thrice.view(2, 3, 6, -1) - once[:, None]).abs().max() < 2e-6


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_gradients_pass_through_checkpointed_layers(family: str) -> None:
    network = network_of(family).requires_grad_(requires_grad=False)
    fusion = fused(network)
    tokens = pictures().tokens
    gradients: list[list[Tensor]] = []
    for checkpointing in (False, True):
        network.train(
            checkpointing
        )  # transformers recomputes only in train mode; these twins have no dropout
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            network.activation_checkpointing_enable({"use_reentrant": False})
        leaf = tokens.clone().requires_grad_()
        fusion.zero_grad()
        with fusion.seeing(Pictures(tokens=leaf, seen=pictures().seen)):
            loss = network(input_ids=IDS, use_cache=False).logits.square().sum()
        loss.backward()
        found = [leaf.grad, *(parameter.grad for parameter in fusion.parameters())]
        gradients.append([gradient.clone() for gradient in found if gradient is not None])
    assert len(gradients[0]) == len(gradients[1]) == 1 + len(list(fusion.parameters()))
    # The same operations in the same order: not one bit differs.
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert gradients[0][0].abs().max() > 0


def test_at_the_start_only_the_gates_learn() -> None:
    network = network_of("llama")
    fusion = fused(network, opened=False)
    with fusion.seeing(pictures()):
        network(input_ids=IDS).logits.square().sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == name.endswith("gate")


def test_a_copy_of_a_model_reads_its_own_blocks() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network_of("llama")
            self.fusion = fused(self.network)

    one = Joined()
    other = copy.deepcopy(one)
    for parameter in other.fusion.parameters():
        nn.init.zeros_(parameter)
    with one.fusion.seeing(pictures()), other.fusion.seeing(pictures()):
        logits = [model.network(input_ids=IDS).logits for model in (one, other)]
    assert torch.equal(logits[1], network_of("llama")(input_ids=IDS).logits)
    assert not torch.equal(*logits)


def test_a_language_model_never_runs_blind_by_accident() -> None:
    network = network_of("llama")
    fusion = fused(network)
    with pytest.raises(RuntimeError, match="ran without pictures although its layers read them"):
        network(input_ids=IDS)
    with fusion.seeing(pictures()), pytest.raises(ValueError, match="given 3 rows, but the pictures of 2"):
        network(input_ids=IDS[[0, 1, 1]])


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
    network = network_of("llama")
    network.config.num_hidden_layers = 9
    with pytest.raises(ValueError, match="LlamaForCausalLM has no list of 9 decoder layers"):
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
