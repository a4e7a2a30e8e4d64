"""Splicing from the processor to the logits: prefixes, placeholders of each kind, several pictures, padding, Gemma."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.config.joining import Reuse
from isthmus.core.batch import IGNORED
from isthmus.core.errors import DataError
from isthmus.core.protocols import Progress
from isthmus.data.collate import collate
from isthmus.data.samples import Sample
from isthmus.objectives.next_token import NextToken

from .spliced import (
    EXACT,
    FAMILIES,
    PICTURES,
    TOKENIZER,
    TOKENS,
    VOCABULARY,
    WIDTH,
    batch_of,
    by_hand,
    ids,
    model_of,
    processor_of,
    talk,
    visual,
    words_of,
)

SEE = talk((0, "what is it"), ("a dog",))
LONG = talk((0, "what is it"), ("a dog",), ("sure",), ("yes",))
READ = talk(("what runs",), ("the dog",))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_stands_before_the_first_token(family: str) -> None:
    """The row is visual tokens, start, caption, end: what concatenating in front of the text gives."""
    model = model_of(family)
    sample = Sample(id="a", origin="a", images=(PICTURES[0],), captions=("a dog runs",))
    batch = batch_of(processor_of(model, "prefix"), sample, rows="captions")
    text = [TOKENIZER.bos_token_id, *ids("a dog runs"), TOKENIZER.eos_token_id]
    assert batch.token_ids.tolist() == [[model.placeholder_id] * TOKENS + text]
    assert batch.targets.tolist() == [[IGNORED] * (TOKENS + 1) + text[1:]]
    expected = by_hand(model, visual(model, 0), words_of(model, text))
    assert (model.logits(batch)[0] - expected).abs().max() < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_placeholders_among_the_words(family: str) -> None:
    model = model_of(family)
    sample = talk(("what", 2, "is", 0, 2, "it"), ("yes",))
    batch = batch_of(processor_of(model), sample)
    start, end = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
    expected = by_hand(
        model,
        words_of(model, [start, *ids("what")]),
        visual(model, 2),
        words_of(model, ids("is")),
        visual(model, 0, 2),
        words_of(model, [*ids("it"), *ids("\n"), *ids("yes"), end]),
    )
    assert batch.layout.images_per_row == (3,)
    assert (model.logits(batch)[0] - expected).abs().max() < EXACT


def test_virtual_added_and_reused_placeholders_mean_the_same() -> None:
    virtual, added, reused = (
        model_of("llama", placeholder) for placeholder in ("virtual", "add", Reuse(reuse=1))
    )
    assert (virtual.placeholder_id, added.placeholder_id, reused.placeholder_id) == (
        VOCABULARY,
        VOCABULARY,
        1,
    )
    assert added.language.vocabulary == VOCABULARY + 1
    logits = []
    for model in (virtual, added, reused):
        batch = batch_of(processor_of(model), SEE, READ)
        assert (batch.token_ids == model.placeholder_id).sum() == TOKENS
        logits.append(model.logits(batch)[..., :VOCABULARY])
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_no_row_of_the_table_is_asked_for_a_placeholder() -> None:
    """The row of an added or reused id changes nothing: visual tokens take its place whatever it holds."""
    for placeholder in ("add", Reuse(reuse=1)):
        model = model_of("gpt2", placeholder)
        batch = batch_of(processor_of(model), SEE)
        embedded = model.embed(batch)
        with torch.no_grad():
            model.language.network.get_input_embeddings().weight[model.placeholder_id] += 100
        assert torch.equal(model.embed(batch), embedded)


def test_labels_are_minus_100_on_pictures_and_prompts() -> None:
    model = model_of("llama")
    batch = batch_of(processor_of(model), LONG, READ)
    end = TOKENIZER.eos_token_id
    for row, answers in enumerate((["a dog", "yes"], ["the dog"])):
        learnt = [index for index in batch.targets[row].tolist() if index != IGNORED]
        assert learnt == [index for answer in answers for index in (*ids(answer), end)]
        places = batch.targets[row] != IGNORED
        assert torch.equal(batch.token_ids[row][places], batch.targets[row][places])
        assert not places[batch.token_ids[row] == model.placeholder_id].any()
        assert not places[~batch.attention_mask[row]].any()
    term = NextToken(model)(model.encode(batch), batch, Progress(step=0, num_steps=1))["next_token"]
    assert term.count == 3 + 2 + 3
    # Independently: transformers' own shifted cross-entropy on our embeddings and labels.
    theirs = model.language.network(
        inputs_embeds=model.embed(batch), attention_mask=batch.attention_mask.long(), labels=batch.targets
    ).loss
    assert (term.sum / term.count).item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_left_and_right_padding_give_the_same_logits(family: str) -> None:
    model = model_of(family)
    processor = processor_of(model)
    right, left = (batch_of(processor, LONG, SEE, READ, side=side) for side in ("right", "left"))
    ours, theirs = model.logits(right), model.logits(left)
    for row in range(3):
        assert (
            ours[row, right.attention_mask[row]] - theirs[row, left.attention_mask[row]]
        ).abs().max() < EXACT


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_text_rows_beside_rows_with_pictures(family: str, side: str) -> None:
    model = model_of(family)
    processor = processor_of(model)
    together, alone = batch_of(processor, SEE, READ, side=side), batch_of(processor, READ)
    assert together.layout.images_per_row == (1, 0)
    assert alone.pixels is None
    rows = together.attention_mask[1]
    assert (model.logits(together)[1, rows] - model.logits(alone)[0]).abs().max() < EXACT


def test_gemmas_scale_is_for_words_and_not_for_pictures() -> None:
    """Since transformers 5 the factor sqrt(width) sits in the embedding module, and what is given as embeddings is not
    scaled: the first decoder layer gets visual tokens as the connector made them, and words times 4."""
    model = model_of("gemma")
    batch = batch_of(processor_of(model), SEE)
    seen: list[Tensor] = []
    first = model.language.network.get_decoder().layers[0]
    handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model.logits(batch)
    # transformers' own path from ids: its first layer sees scaled words.
    plain = batch_of(processor_of(model), READ)
    with torch.no_grad():
        model.language.network(input_ids=plain.token_ids)
    handle.remove()
    places = batch.token_ids[0] == model.placeholder_id
    assert torch.equal(seen[0][0, places], visual(model, 0))
    table = model.language.network.get_input_embeddings().weight
    words = batch.token_ids[0][~places]
    assert torch.equal(seen[0][0, ~places], table[words] * math.sqrt(WIDTH))
    assert torch.equal(seen[1], model.embed(plain))


@settings(max_examples=60, deadline=None)
@given(
    context=st.integers(1, 40),
    parts=st.lists(st.sampled_from(["what", "is", 0, 1, 2]), min_size=1, max_size=6),
    template=st.sampled_from(["plain", "prefix", "vicuna_v1"]),
)
def test_truncation_never_cuts_inside_a_picture(context: int, parts: list[str | int], template: str) -> None:
    processor = processor_of(MODEL, template, context)
    try:
        row = processor.row(talk(tuple(parts), ("yes it is a dog",)), rows="conversations", choice=0)
    except DataError as error:
        assert "rows.json row 0" in str(error)  # noqa: PT017
        return
    assert len(row.token_ids) <= context
    assert row.token_ids.count(MODEL.placeholder_id) == TOKENS * len(row.pictures)
    assert len(row.pictures) == sum(isinstance(part, int) for part in parts)
    MODEL.embed(collate([row], pad_id=0))


MODEL = model_of("llama")
