"""Trained rows for special tokens beside a frozen table."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.language.token_rows import TokenRows

VOCABULARY, WIDTH = 40, 24


@pytest.mark.parametrize("tied", [True, False])
def test_trained_rows_are_what_a_longer_table_would_be(tied: bool) -> None:
    """Against transformers' own resized model with the same rows: 2e-6 measured, as a longer product is summed otherwise."""
    config = GPT2Config(
        n_embd=WIDTH, n_layer=1, n_head=2, vocab_size=VOCABULARY, n_positions=32, tie_word_embeddings=tied
    )
    torch.manual_seed(0)
    ours, theirs = GPT2LMHeadModel(config).eval(), GPT2LMHeadModel(config).eval()
    theirs.load_state_dict(ours.state_dict())
    rows = TokenRows(network=ours, num_rows=2)
    known = ours.get_input_embeddings().weight
    assert (rows.table - known.mean(dim=0)).abs().max() < 1e-6
    rows.start_as(VOCABULARY + 1, 7)
    assert torch.equal(rows.table[1], known[7])
    assert rows.head is None or torch.equal(rows.head[1], ours.lm_head.weight[7])
    torch.nn.init.normal_(rows.table, std=0.4)
    language = LanguageModel(network=ours, rows=rows).eval()
    theirs.resize_token_embeddings(VOCABULARY + 2, mean_resizing=False)
    theirs.get_input_embeddings().weight.data[VOCABULARY:] = rows.table.data
    if not tied:
        assert rows.head is not None
        theirs.get_output_embeddings().weight.data[VOCABULARY:] = rows.head.data
    ids = torch.tensor([[1, VOCABULARY, 5, VOCABULARY + 1, 7]])
    hidden = language(language.embed(ids), torch.ones_like(ids).bool())
    assert (language.logits(hidden[0]) - theirs(input_ids=ids).logits[0]).abs().max() < 5e-6
    assert sum(parameter.numel() for parameter in rows.parameters()) == (1 if tied else 2) * 2 * WIDTH
