"""Token ids with the real tokenizers: golden rows, typed special tokens, truncation, placeholders."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from isthmus.core.batch import IGNORED
from isthmus.core.errors import DataError, RecipeError
from isthmus.data.encoding import Encoder
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import CaptionEncoder, TextCodec
from isthmus.data.vocabulary import SPECIALS, train_tokenizer

MODELS = Path(os.environ.get("ISTHMUS_SHARED", "../shared")) / "models"
TALK = (Turn("user", (ImagePart(0), "What is it?")), Turn("assistant", ("A dog",)))


def load(name: str) -> PreTrainedTokenizerBase:
    if not (MODELS / name).is_dir():
        pytest.skip(f"the shared tokenizer {MODELS / name} is not on this machine")
    return AutoTokenizer.from_pretrained(MODELS / name)


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedTokenizerBase:
    return load("tokenizers/gpt2")


@pytest.fixture(scope="module")
def stories() -> PreTrainedTokenizerBase:
    return load("stories260k")


def codec(tokenizer: PreTrainedTokenizerBase, template: str, context: int = 1000) -> TextCodec:
    return TextCodec(
        tokenizer=tokenizer,
        template=ChatTemplate.from_name(template),
        placeholder_id=len(tokenizer),
        context=context,
    )


def tokens(codec: TextCodec, turns: tuple[Turn, ...], **options: object) -> tuple[list[str], list[str]]:
    text = codec.encode(turns, tokens_per_image=[2, 3], origin="a.json row 1", **options)
    known = codec.tokenizer.convert_ids_to_tokens
    names = [known(index) if index < len(codec.tokenizer) else "IMG" for index in text.ids]
    return names, [names[at] for at, target in enumerate(text.targets) if target != IGNORED]


def test_gpt2_plain(gpt2: PreTrainedTokenizerBase) -> None:
    text = codec(gpt2, "plain").encode(TALK, tokens_per_image=[2], origin="row")
    assert text.ids == [50256, 50257, 50257, 2061, 318, 340, 30, 198, 32, 3290, 50256]
    assert text.targets == [IGNORED] * 8 + [32, 3290, 50256]
    assert (text.num_supervised, text.truncated, text.images) == (3, False, (0,))


def test_gpt2_vicuna_equals_the_whole_string_where_pieces_meet_at_spaces(
    gpt2: PreTrainedTokenizerBase,
) -> None:
    turns = (Turn("system", ("Hi.",)), Turn("user", ("Is it",)), Turn("assistant", ("Yes",)))
    names, learnt = tokens(codec(gpt2, "vicuna_v1"), turns)
    assert names == gpt2.tokenize("<|endoftext|>Hi. USER: Is it ASSISTANT: Yes<|endoftext|>")
    assert learnt == ["ĠYes", "<|endoftext|>"]


def test_stories_plain(stories: PreTrainedTokenizerBase) -> None:
    turns = (Turn("user", (ImagePart(0), "the dog")), Turn("assistant", ("it was",)))
    names, learnt = tokens(codec(stories, "plain"), turns)
    assert names == ["<s>", "IMG", "IMG", "▁the", "▁do", "g", "<0x0A>", "▁it", "▁was", "</s>"]
    assert learnt == ["▁it", "▁was", "</s>"]


def test_stories_llama2_equals_the_whole_string(stories: PreTrainedTokenizerBase) -> None:
    turns = (
        Turn("user", ("the",)),
        Turn("assistant", ("was",)),
        Turn("user", ("and",)),
        Turn("assistant", ("it",)),
    )
    names, learnt = tokens(codec(stories, "llama2"), turns)
    assert names == stories.tokenize("<s>[INST] the [/INST] was </s><s>[INST] and [/INST] it </s>")
    # The space before the end is a token of its own, and the model has to write it.
    assert learnt == ["▁was", "▁", "</s>", "▁it", "▁", "</s>"]


@pytest.mark.parametrize("name", ["plain", "llava_plain", "vicuna_v0", "vicuna_v1", "llama2"])
@pytest.mark.parametrize("which", ["gpt2", "stories"])
def test_a_prompt_is_what_training_showed_before_the_answer(
    name: str, which: str, request: pytest.FixtureRequest
) -> None:
    encoder = codec(request.getfixturevalue(which), name)
    whole = encoder.encode(TALK, tokens_per_image=[2], origin="row")
    prompt = encoder.encode(TALK[:1], tokens_per_image=[2], origin="row", purpose="prompt")
    first = next(at for at, target in enumerate(whole.targets) if target != IGNORED)
    assert whole.ids[:first] == prompt.ids
    assert tuple(whole.ids[-len(encoder.end_ids) :]) == encoder.end_ids
    assert encoder.decode(whole.ids[first : -len(encoder.end_ids)]) == "A dog"


@pytest.mark.parametrize("typed", ["</s>", "<|endoftext|>", "<s>", "<unk>", "<image>"])
@pytest.mark.parametrize("which", ["gpt2", "stories"])
def test_typed_special_tokens_stay_text(typed: str, which: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(which)
    encoder = codec(tokenizer, "plain")
    ids = encoder.content_ids(f"say {typed} now")
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert encoder.decode(ids) == f"say {typed} now"
    text = encoder.encode(
        (Turn("user", (typed,)), Turn("assistant", (typed,))), tokens_per_image=[], origin="row"
    )
    assert text.ids.count(tokenizer.eos_token_id) == 1 + (tokenizer.eos_token_id == tokenizer.bos_token_id)
    assert encoder.placeholder_id not in text.ids


def test_text_rows_supervise_every_word_but_no_picture(gpt2: PreTrainedTokenizerBase) -> None:
    text = codec(gpt2, "plain").encode(TALK, tokens_per_image=[2], origin="row", purpose="text")
    assert [a for a, b in zip(text.ids, text.targets, strict=True) if b == IGNORED] == [50257, 50257]


def test_a_long_caption_is_cut_at_the_end_and_pictures_never(gpt2: PreTrainedTokenizerBase) -> None:
    whole = codec(gpt2, "plain").encode(TALK, tokens_per_image=[2], origin="row")
    cut = codec(gpt2, "plain", context=10).encode(TALK, tokens_per_image=[2], origin="row")
    assert (cut.ids, cut.targets, cut.truncated) == (whole.ids[:10], whole.targets[:10], True)
    with pytest.raises(DataError, match=r"b\.json row 7 has no supervised token in the 8 of 11 tokens"):
        codec(gpt2, "plain", context=8).encode(TALK, tokens_per_image=[2], origin="b.json row 7")
    with pytest.raises(
        DataError, match=r"b\.json row 7 needs 31 tokens up to the end of its last picture.*has 30"
    ):
        codec(gpt2, "plain", context=30).encode(TALK, tokens_per_image=[30], origin="b.json row 7")
    with pytest.raises(DataError, match="prompt of 8 tokens, but the context has 7"):
        codec(gpt2, "plain", context=7).encode(TALK[:1], tokens_per_image=[2], origin="row", purpose="prompt")


@pytest.mark.parametrize("which", ["gpt2", "stories"])
def test_ids_equal_the_tokenizer_called_alone(which: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(which)
    encoder = Encoder(tokenizer)
    for text in ("The dog's toy, é 狗.", "a </s> b<|endoftext|>"):
        assert (
            encoder.content(text)
            == tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        )
        assert encoder.piece(text) == tokenizer(text, add_special_tokens=False).input_ids


def test_threads_do_not_change_each_others_special_tokens(gpt2: PreTrainedTokenizerBase) -> None:
    encoder = Encoder(gpt2)
    typed = "<|endoftext|> " * 50

    def ids(number: int) -> tuple[int, ...]:
        return tuple(encoder.piece(typed) if number % 2 else encoder.content(typed))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ids, range(400)))
    assert len(set(found[::2])) == len(set(found[1::2])) == 1
    assert gpt2.eos_token_id in found[1]
    assert gpt2.eos_token_id not in found[0]


def test_pictures_stand_in_reading_order(gpt2: PreTrainedTokenizerBase) -> None:
    turns = (Turn("user", ("a", ImagePart(1), "b", ImagePart(0), ImagePart(1))), Turn("assistant", ("c",)))
    names, _ = tokens(codec(gpt2, "plain"), turns)
    assert names == ["<|endoftext|>", "a", *["IMG"] * 3, "b", *["IMG"] * 5, "Ċ", "c", "<|endoftext|>"]


def test_a_row_without_an_answer_is_refused(gpt2: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="no supervised token"):
        codec(gpt2, "plain").encode(TALK[:1], tokens_per_image=[2], origin="row")


def test_a_reused_placeholder_that_somebody_types_is_refused(gpt2: PreTrainedTokenizerBase) -> None:
    encoder = TextCodec(
        tokenizer=gpt2, template=ChatTemplate.from_name("plain"), placeholder_id=3290, context=99
    )
    with pytest.raises(DataError, match=r"holds the text 'Ġdog', which is the placeholder"):
        encoder.encode(TALK, tokens_per_image=[2], origin="row")


def test_a_reused_placeholder_that_the_template_writes_is_refused(gpt2: PreTrainedTokenizerBase) -> None:
    encoder = TextCodec(
        tokenizer=gpt2, template=ChatTemplate.from_name("plain"), placeholder_id=198, context=99
    )
    with pytest.raises(RecipeError, match=r"template 'plain' writes 'Ċ', which is the placeholder"):
        encoder.encode(TALK, tokens_per_image=[2], origin="row")


def test_template_tokens_that_a_tokenizer_lacks(gpt2: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RecipeError, match=r"<\|im_end\|>"):
        codec(gpt2, "chatml")


def test_captions_keep_their_end_token(gpt2: PreTrainedTokenizerBase) -> None:
    encoder = CaptionEncoder(tokenizer=gpt2, context=4)
    assert encoder.encode_caption("a b c d") == ([50256, 64, 275, 50256], True)
    assert encoder.encode_caption("a b") == ([50256, 64, 275, 50256], False)


@pytest.mark.parametrize(("name", "start", "end"), [("clip", 49406, 49407), ("bert", 101, 102)])
def test_captions_equal_the_published_tokenizers(name: str, start: int, end: int) -> None:
    tokenizer = load(f"tokenizers/{name}")
    ids, _ = CaptionEncoder(tokenizer=tokenizer, context=77).encode_caption("Two Dogs run.")
    assert ids == tokenizer("Two Dogs run.").input_ids
    assert (ids[0], ids[-1]) == (start, end)


TEXTS = ["A dog runs .", "A dog, is it red?", "two Dogs run on the grass"] * 3


@pytest.mark.parametrize(("algorithm", "size"), [("word", 12), ("bpe", 280)])
def test_trained_tokenizers(algorithm: str, size: int, tmp_path: Path) -> None:
    first, again = (
        train_tokenizer(TEXTS, algorithm=algorithm, vocabulary=size, lower=True) for _ in range(2)
    )
    assert first.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert len(first) == size
    assert first.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2, 3]
    first.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in ("A dog runs .", "</s> is red?"):
        for special in (True, False):
            ours = first(text, add_special_tokens=False, split_special_tokens=special).input_ids
            assert ours == loaded(text, add_special_tokens=False, split_special_tokens=special).input_ids
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 3)
    ids = codec(loaded, "plain").encode(
        (Turn("user", (ImagePart(0),)), Turn("assistant", ("a dog",))), tokens_per_image=[2], origin="row"
    )
    assert [*ids.ids[:3], ids.ids[-1]] == [2, size, size, 3]
    assert codec(loaded, "plain").decode(ids.ids) == "a dog"


def test_words_split_at_spaces_and_closing_signs() -> None:
    words = train_tokenizer(TEXTS, algorithm="word", vocabulary=50, lower=True)
    assert words.tokenize("A Dog, is-it red?") == ["a", "dog", ",", "<unk>", "red", "?"]


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_bytes_know_every_text(text: str) -> None:
    tokenizer = train_tokenizer(["a"], algorithm="bpe", vocabulary=260, lower=False)
    assert 1 not in tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def test_a_small_vocabulary_is_refused() -> None:
    with pytest.raises(RecipeError, match="expected at least 260"):
        train_tokenizer(["a"], algorithm="bpe", vocabulary=100, lower=True)
