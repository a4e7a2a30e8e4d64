"""Phrases: several words at one position, from the turn to the vector."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from isthmus.core.batch import IGNORED, Batch
from isthmus.data.collate import Side, collate
from isthmus.data.processor import LanguageProcessor
from isthmus.data.samples import Phrase, Sample, Turn
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer
from isthmus.models.language_model import LanguageModelOnly
from isthmus.parts.language.language_model import LanguageModel, LlamaShape, build_llama

WORDS = "top left large red square small ring what colour"
TALK = (
    Turn("user", (Phrase("top left red ring"), Phrase("small square"), "what colour")),
    Turn("assistant", ("red",)),
)


@pytest.fixture(scope="module")
def processor() -> LanguageProcessor:
    tokenizer = train_tokenizer([WORDS], algorithm="word", vocabulary=30, lower=True)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    template = ChatTemplate.from_name("plain")
    return LanguageProcessor(
        codec=TextCodec(tokenizer=tokenizer, template=template, placeholder_id=len(tokenizer), context=50)
    )


def batch_of(processor: LanguageProcessor, side: Side) -> Batch:
    other = (Turn("user", ("what",)), Turn("assistant", ("left",)))
    rows = [
        processor.row(Sample(id=str(number), origin="row", turns=turns), rows="text_answers", choice=0)
        for number, turns in enumerate((TALK, other))
    ]
    return collate(rows, pad_id=processor.pad_id, side=side)


def test_a_phrase_is_one_position_that_carries_no_loss(processor: LanguageProcessor) -> None:
    codec = processor.codec
    text = codec.encode(TALK, tokens_per_image=(), origin="row")
    top, left, red, ring = codec.content_ids("top left red ring")
    small, square = codec.content_ids("small square")
    at = text.ids.index(top)
    assert text.ids[at : at + 4] == [top, small, *codec.content_ids("what colour")]
    assert text.joined == {at: [left, red, ring], at + 1: [square]}
    assert next(target for target in text.targets if target != IGNORED) == red
    every = codec.encode(TALK, tokens_per_image=(), origin="row", purpose="text")
    assert every.targets[at : at + 2] == [IGNORED, IGNORED]


@pytest.mark.parametrize("side", ["right", "left"])
def test_its_vector_is_the_sum_of_its_words(processor: LanguageProcessor, side: Side) -> None:
    batch = batch_of(processor, side)
    size = LlamaShape(vocabulary=30, width=8, num_layers=1, num_heads=2, num_kv_heads=2, ffn=8, context=50)
    model = LanguageModelOnly(language=LanguageModel(network=build_llama(size)))
    table = model.language.token_embeddings.weight
    found = model.embed(batch)
    expected = table[batch.token_ids].clone()
    top, left, red, ring = processor.codec.content_ids("top left red ring")
    small, square = processor.codec.content_ids("small square")
    at = batch.token_ids[0].tolist().index(top)
    expected[0, at] = (table[top] + table[left] + table[red] + table[ring]) / 2
    expected[0, at + 1] = (table[small] + table[square]) / 2**0.5
    torch.testing.assert_close(found, expected)


def test_rows_without_phrases_carry_nothing_more(processor: LanguageProcessor) -> None:
    turns = (Turn("user", ("what",)), Turn("assistant", ("left",)))
    row = processor.row(Sample(id="0", origin="row", turns=turns), rows="text_answers", choice=0)
    assert collate([row], pad_id=0).joined_ids is None
