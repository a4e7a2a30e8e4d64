"""Gated cross-attention in real decoders: identity at the start, caches, checkpointing, gradients."""

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

from isthmus.parts.fusion.gated_block import GatedBlock, GatedShape
from isthmus.parts.fusion.gated_cross_attention import GatedCrossAttention
from isthmus.parts.fusion.media import Pictures, pictures_of_rows
from isthmus.parts.recomputation import set_recomputed

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
    """Against a loop over positions and heads, each reading only the tokens of its own picture: 2e-7 measured."""
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
            assert (given[row, position] - expected).detach().abs().max() < 5e-6


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
    # A row without pictures is the same beside one with a picture: no difference measured.
    assert (logits[0][0] - logits[1][0]).abs().max() < 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_passes_equal_one_pass(family: str) -> None:
    """Largest difference measured over the five families: 9e-8."""
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
    """Rows repeated three times for their beams: no difference measured."""
    network = network_of("llama")
    fusion = fused(network)
    with torch.no_grad(), fusion.seeing(pictures()):
        once = network(input_ids=IDS).logits
        thrice = network(input_ids=IDS.repeat_interleave(3, dim=0)).logits
    assert (thrice.view(2, 3, 6, -1) - once[:, None]).abs().max() < 2e-6


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_gradients_pass_through_recomputed_layers(family: str) -> None:
    """By our switch, with which the network stays in eval mode, and by transformers' own."""
    network = network_of(family).requires_grad_(requires_grad=False)
    fusion = fused(network)
    tokens = pictures().tokens
    gradients: list[list[Tensor]] = []
    for switch in ("none", "ours", "transformers"):
        set_recomputed(network, enabled=switch == "ours")
        if switch == "transformers":  # it recomputes only in train mode; these twins have no dropout
            network.train()
            for module in network.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            network.activation_checkpointing_enable({"use_reentrant": False})
        leaf = tokens.clone().requires_grad_()
        fusion.zero_grad()
        with fusion.seeing(Pictures(tokens=leaf, seen=pictures().seen)):
            loss = network(input_ids=IDS, use_cache=False).logits.square().sum()
        loss.backward()
        found = [leaf.grad, *(parameter.grad for parameter in fusion.parameters())]
        gradients.append([gradient.clone() for gradient in found if gradient is not None])
    kept, ours, theirs = gradients
    assert len(kept) == len(ours) == len(theirs) == 1 + len(list(fusion.parameters()))
    # The same operations in the same order: not one bit differs.
    assert all(torch.equal(*pair) for other in (ours, theirs) for pair in zip(kept, other, strict=True))
    assert kept[0].abs().max() > 0


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
