"""Golden token ids of every chat template with the real GPT-2 and stories260k tokenizers."""

import functools
import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from isthmus.core.batch import IGNORED
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.segments import rendered_text
from isthmus.data.templates import TEMPLATES
from isthmus.data.text import TextCodec

MODELS = Path(os.environ.get("ISTHMUS_SHARED", "../shared")) / "models"
TALK = (
    Turn("user", (ImagePart(0), "\nthe")),
    Turn("assistant", ("was it",)),
    Turn("user", ("and",)),
    Turn("assistant", ("she",)),
)

# Every token apart by a space; what is supervised stands between « and ». Where a template has a default system text,
# the text here is `the`.
GPT2 = {
    "plain": ("<|endoftext|> <image> <image> Ċ the Ċ «was Ġit <|endoftext|>» and Ċ «she <|endoftext|>»"),
    "llava_plain": "<|endoftext|> <image> <image> Ċ the Ċ «was Ġit Ċ» and Ċ «she Ċ»",
    "flamingo": ("<|endoftext|> <image> <image> Ċ the Ċ «was Ġit <|endofchunk|>» and Ċ «she <|endofchunk|>»"),
    "prefix": ("<image> <image> <|endoftext|> Ċ the «Ġwas Ġit <|endoftext|>» and «Ġshe <|endoftext|>»"),
    "blip2": "<image> <image> <|endoftext|> Ċ the «Ġwas Ġit Ċ» and «Ġshe Ċ»",
    "vicuna_v0": (
        "<|endoftext|> the ### Human : Ġ <image> <image> Ċ the ### Assistant : «Ġwas Ġit ###» Human : "
        "Ġand ### Assistant : «Ġshe ###»"
    ),
    "vicuna_v1": (
        "<|endoftext|> the ĠUS ER : Ġ <image> <image> Ċ the ĠASS IST ANT : «Ġwas Ġit <|endoftext|>» USER "
        ": Ġand ĠASS IST ANT : «Ġshe <|endoftext|>»"
    ),
    "llama2": (
        "<|endoftext|> [ INST ] Ġ <image> <image> Ċ the Ġ[/ INST ] «Ġwas Ġit Ġ <|endoftext|>» "
        "<|endoftext|> [ INST ] Ġand Ġ[/ INST ] «Ġshe Ġ <|endoftext|>»"
    ),
    "mistral": (
        "<|endoftext|> [ INST ] Ġ <image> <image> Ċ the Ġ[/ INST ] «Ġwas Ġit <|endoftext|>» [ INST ] Ġand "
        "Ġ[/ INST ] «Ġshe <|endoftext|>»"
    ),
    "llama3": (
        "<|endoftext|> <|start_header_id|> user <|end_header_id|> ĊĊ <image> <image> Ċ the <|eot_id|> "
        "<|start_header_id|> ass istant <|end_header_id|> ĊĊ «was Ġit <|eot_id|>» <|start_header_id|> "
        "user <|end_header_id|> ĊĊ and <|eot_id|> <|start_header_id|> ass istant <|end_header_id|> ĊĊ "
        "«she <|eot_id|>»"
    ),
    "gemma": (
        "<|endoftext|> <start_of_turn> user Ċ <image> <image> Ċ the <end_of_turn> Ċ <start_of_turn> model "
        "Ċ «was Ġit <end_of_turn>» Ċ <start_of_turn> user Ċ and <end_of_turn> Ċ <start_of_turn> model Ċ "
        "«she <end_of_turn>» Ċ"
    ),
    "chatml": (
        "<|im_start|> user Ċ <image> <image> Ċ the <|im_end|> Ċ <|im_start|> ass istant Ċ «was Ġit "
        "<|im_end|>» Ċ <|im_start|> user Ċ and <|im_end|> Ċ <|im_start|> ass istant Ċ «she <|im_end|>» Ċ"
    ),
    "chatml_direct": (
        "<|im_start|> system Ċ the <|im_end|> <|im_start|> user Ċ <image> <image> Ċ the <|im_end|> "
        "<|im_start|> ass istant Ċ «was Ġit <|im_end|>» <|im_start|> user Ċ and <|im_end|> <|im_start|> "
        "ass istant Ċ «she <|im_end|>»"
    ),
    "phi": (
        "<|user|> Ċ <image> <image> Ċ the <|end|> Ċ <|assistant|> Ċ «was Ġit <|end|>» Ċ <|user|> Ċ and "
        "<|end|> Ċ <|assistant|> Ċ «she <|end|>» Ċ"
    ),
}
STORIES = {
    "plain": "<s> <image> <image> <0x0A> t he <0x0A> «▁was ▁it </s>» ▁and <0x0A> «▁she </s>»",
    "llava_plain": ("<s> <image> <image> <0x0A> t he <0x0A> «▁was ▁it <0x0A>» ▁and <0x0A> «▁she <0x0A>»"),
    "flamingo": (
        "<s> <image> <image> <0x0A> t he <0x0A> «▁was ▁it <|endofchunk|>» ▁and <0x0A> «▁she <|endofchunk|>»"
    ),
    "prefix": "<image> <image> <s> <0x0A> t he «▁was ▁it </s>» ▁and «▁she </s>»",
    "blip2": "<image> <image> <s> <0x0A> t he «▁was ▁it <0x0A>» ▁and «▁she <0x0A>»",
    "vicuna_v0": (
        "<s> ▁the ▁ <0x23> <0x23> <0x23> H u m an : ▁ <image> <image> <0x0A> t he ▁ <0x23> <0x23> <0x23> "
        "A s s is t an t : «▁was ▁it ▁ <0x23> <0x23> <0x23>» ▁H u m an : ▁and ▁ <0x23> <0x23> <0x23> A s "
        "s is t an t : «▁she ▁ <0x23> <0x23> <0x23>»"
    ),
    "vicuna_v1": (
        "<s> ▁the ▁ U S E R : ▁ <image> <image> <0x0A> t he ▁ A S S I S T A N T : «▁was ▁it </s>» ▁ U S E "
        "R : ▁and ▁ A S S I S T A N T : «▁she </s>»"
    ),
    "llama2": (
        "<s> ▁ [ I N S T ] ▁ <image> <image> <0x0A> t he ▁ [ / I N S T ] «▁was ▁it ▁ </s>» <s> ▁ [ I N S "
        "T ] ▁and ▁ [ / I N S T ] «▁she ▁ </s>»"
    ),
    "mistral": (
        "<s> ▁ [ I N S T ] ▁ <image> <image> <0x0A> t he ▁ [ / I N S T ] «▁was ▁it </s>» ▁ [ I N S T ] "
        "▁and ▁ [ / I N S T ] «▁she </s>»"
    ),
    "llama3": (
        "<s> <|start_header_id|> ▁u s er <|end_header_id|> ▁ <0x0A> <0x0A> <image> <image> <0x0A> t he "
        "<|eot_id|> <|start_header_id|> ▁a s s is t an t <|end_header_id|> ▁ <0x0A> <0x0A> «▁was ▁it "
        "<|eot_id|>» <|start_header_id|> ▁u s er <|end_header_id|> ▁ <0x0A> <0x0A> ▁and <|eot_id|> "
        "<|start_header_id|> ▁a s s is t an t <|end_header_id|> ▁ <0x0A> <0x0A> «▁she <|eot_id|>»"
    ),
    "gemma": (
        "<s> <start_of_turn> ▁u s er <0x0A> <image> <image> <0x0A> t he <end_of_turn> ▁ <0x0A> "
        "<start_of_turn> ▁m o d e l <0x0A> «▁was ▁it <end_of_turn>» <0x0A> <start_of_turn> ▁u s er <0x0A> "
        "▁and <end_of_turn> ▁ <0x0A> <start_of_turn> ▁m o d e l <0x0A> «▁she <end_of_turn>» <0x0A>"
    ),
    "chatml": (
        "<|im_start|> ▁u s er <0x0A> <image> <image> <0x0A> t he <|im_end|> ▁ <0x0A> <|im_start|> ▁a s s "
        "is t an t <0x0A> «▁was ▁it <|im_end|>» <0x0A> <|im_start|> ▁u s er <0x0A> ▁and <|im_end|> ▁ "
        "<0x0A> <|im_start|> ▁a s s is t an t <0x0A> «▁she <|im_end|>» <0x0A>"
    ),
    "chatml_direct": (
        "<|im_start|> ▁s y st e m <0x0A> ▁the <|im_end|> <|im_start|> ▁u s er <0x0A> <image> <image> "
        "<0x0A> t he <|im_end|> <|im_start|> ▁a s s is t an t <0x0A> «▁was ▁it <|im_end|>» <|im_start|> "
        "▁u s er <0x0A> ▁and <|im_end|> <|im_start|> ▁a s s is t an t <0x0A> «▁she <|im_end|>»"
    ),
    "phi": (
        "<|user|> ▁ <0x0A> <image> <image> <0x0A> t he <|end|> ▁ <0x0A> <|assistant|> ▁ <0x0A> «▁was ▁it "
        "<|end|>» <0x0A> <|user|> ▁ <0x0A> ▁and <|end|> ▁ <0x0A> <|assistant|> ▁ <0x0A> «▁she <|end|>» "
        "<0x0A>"
    ),
}
FOLDERS = {"tokenizers/gpt2": GPT2, "stories260k": STORIES}
CASES = [(folder, name) for folder in FOLDERS for name in TEMPLATES]


@functools.cache
def tokenizer_of(folder: str) -> PreTrainedTokenizerBase:
    """The real tokenizer; special tokens of templates that it lacks are added, as one would before training."""
    if not (MODELS / folder).is_dir():
        pytest.skip(f"the shared tokenizer {MODELS / folder} is not on this machine")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / folder)
    specials = [token for template in TEMPLATES.values() for token in template.specials]
    tokenizer.add_special_tokens({"additional_special_tokens": [*dict.fromkeys(specials), "<image>"]})
    return tokenizer


@functools.cache
def codec_of(folder: str, name: str) -> TextCodec:
    tokenizer = tokenizer_of(folder)
    return TextCodec(
        tokenizer=tokenizer, template=TEMPLATES[name], placeholder_id=len(tokenizer), context=1000
    )


def talk_of(name: str) -> tuple[Turn, ...]:
    return (Turn("system", ("the",)), *TALK) if TEMPLATES[name].default_system else TALK


def unmarked(golden: str) -> list[str]:
    return golden.replace("«", "").replace("»", "").split(" ")


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_ids_and_targets(folder: str, name: str) -> None:
    tokenizer, codec = tokenizer_of(folder), codec_of(folder, name)
    text = codec.encode(talk_of(name), tokens_per_image=[2], origin="row")
    golden = unmarked(FOLDERS[folder][name])
    image = codec.placeholder_id
    expected = [image if token == "<image>" else tokenizer.convert_tokens_to_ids(token) for token in golden]
    assert text.ids == expected
    spans, inside = [], False
    for token in FOLDERS[folder][name].split(" "):
        inside = inside or token.startswith("«")
        spans.append(inside)
        inside = inside and not token.endswith("»")
    assert text.targets == [
        index if learnt else IGNORED for index, learnt in zip(expected, spans, strict=True)
    ]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "llama3"])
def test_gpt2_ids_equal_the_whole_string(name: str) -> None:
    """GPT-2 splits two newlines before a word where LLaMA-3's own tokenizer keeps them together, as ours does."""
    tokenizer, codec = tokenizer_of("tokenizers/gpt2"), codec_of("tokenizers/gpt2", name)
    whole = rendered_text(codec.template.render(talk_of(name)), image="<image><image>")
    assert tokenizer.tokenize(whole) == unmarked(GPT2[name])


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_an_answer_ends_where_generation_stops(folder: str, name: str) -> None:
    codec = codec_of(folder, name)
    text = codec.encode(talk_of(name), tokens_per_image=[2], origin="row")
    learnt = [index for index in text.targets if index != IGNORED]
    assert tuple(learnt[-len(codec.end_ids) :]) == codec.end_ids
    # Each of the two answers ends so, and the token at which generation stops stands nowhere else in an answer.
    assert learnt.count(codec.end_ids[-1]) == 2 * codec.end_ids.count(codec.end_ids[-1])
