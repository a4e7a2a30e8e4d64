"""Golden texts and supervised spans of every chat template."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import DataError, RecipeError
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.segments import rendered_text
from isthmus.data.templates import TEMPLATES, ChatTemplate

TALK = (
    Turn("user", (ImagePart(0), "\nWhat is it?")),
    Turn("assistant", ("A dog.",)),
    Turn("user", ("Sure?",)),
    Turn("assistant", ("Yes.",)),
)
HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
USER = HUMAN.replace("human", "user")

# What is supervised stands between « and ».
GOLDEN = {
    "plain": "<s><image>\nWhat is it?\n«A dog.</s>»Sure?\n«Yes.</s>»",
    "llava_plain": "<s><image>\nWhat is it?\n«A dog.\n»Sure?\n«Yes.\n»",
    "flamingo": "<s><image>\nWhat is it?\n«A dog.<|endofchunk|>»Sure?\n«Yes.<|endofchunk|>»",
    "prefix": "<image><s>\nWhat is it? «A dog.</s>»Sure? «Yes.</s>»",
    "blip2": "<image><s>\nWhat is it? «A dog.\n»Sure? «Yes.\n»",
    "vicuna_v0": f"<s>{HUMAN}###Human: <image>\nWhat is it?###Assistant: «A dog.###»Human: Sure?###Assistant: «Yes.###»",
    "vicuna_v1": f"<s>{USER} USER: <image>\nWhat is it? ASSISTANT: «A dog.</s>»USER: Sure? ASSISTANT: «Yes.</s>»",
    "llama2": "<s>[INST] <image>\nWhat is it? [/INST] «A dog. </s>»<s>[INST] Sure? [/INST] «Yes. </s>»",
    "mistral": "<s>[INST] <image>\nWhat is it? [/INST] «A dog.</s>»[INST] Sure? [/INST] «Yes.</s>»",
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«A dog.<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Yes.<|eot_id|>»"
    ),
    "gemma": (
        "<s><start_of_turn>user\n<image>\nWhat is it?<end_of_turn>\n<start_of_turn>model\n«A dog.<end_of_turn>»\n"
        "<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n«Yes.<end_of_turn>»\n"
    ),
    "chatml": (
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n«A dog.<|im_end|>»\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n«Yes.<|im_end|>»\n"
    ),
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|>"
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|><|im_start|>assistant\n«A dog.<|im_end|>»"
        "<|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n«Yes.<|im_end|>»"
    ),
    "phi": (
        "<|user|>\n<image>\nWhat is it?<|end|>\n<|assistant|>\n«A dog.<|end|>»\n"
        "<|user|>\nSure?<|end|>\n<|assistant|>\n«Yes.<|end|>»\n"
    ),
}
PROMPTS = {
    "plain": "<s><image>\nWhat is it?\n",
    "llava_plain": "<s><image>\nWhat is it?\n",
    "flamingo": "<s><image>\nWhat is it?\n",
    "prefix": "<image><s>\nWhat is it?",
    "blip2": "<image><s>\nWhat is it?",
    "vicuna_v0": f"<s>{HUMAN}###Human: <image>\nWhat is it?###Assistant:",
    "vicuna_v1": f"<s>{USER} USER: <image>\nWhat is it? ASSISTANT:",
    "llama2": "<s>[INST] <image>\nWhat is it? [/INST]",
    "mistral": "<s>[INST] <image>\nWhat is it? [/INST]",
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "gemma": "<s><start_of_turn>user\n<image>\nWhat is it?<end_of_turn>\n<start_of_turn>model\n",
    "chatml": "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n",
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|>"
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|><|im_start|>assistant\n"
    ),
    "phi": "<|user|>\n<image>\nWhat is it?<|end|>\n<|assistant|>\n",
}
SYSTEMS = {
    "plain": "<s>Be brief.\nHi\n",
    "llava_plain": "<s>Be brief.\nHi\n",
    "flamingo": "<s>Be brief.\nHi\n",
    "prefix": "<s>Be brief. Hi",
    "blip2": "<s>Be brief. Hi",
    "vicuna_v0": "<s>Be brief.###Human: Hi###Assistant:",
    "vicuna_v1": "<s>Be brief. USER: Hi ASSISTANT:",
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]",
    "mistral": "<s>[INST] Be brief.\n\nHi [/INST]",
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "chatml_direct": (
        "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"
    ),
    "phi": "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n",
}


def bound(name: str) -> ChatTemplate:
    template = ChatTemplate.from_name(name)
    return template.bind(bos="<s>", eos="</s>", vocabulary=set(template.specials))


def marked(template: ChatTemplate, turns: tuple[Turn, ...]) -> str:
    text = "".join(f"«{s.text}»" if s.supervised else s.text or "<image>" for s in template.render(turns))
    return text.replace("»«", "")


def test_every_template_has_a_golden_text() -> None:
    assert set(GOLDEN) == set(PROMPTS) == set(SYSTEMS) == set(TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_supervised_spans(name: str) -> None:
    assert marked(bound(name), TALK) == GOLDEN[name]


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_opens_an_answer(name: str) -> None:
    segments = bound(name).render(TALK[:1], add_generation_prompt=True)
    assert rendered_text(segments) == PROMPTS[name]
    assert not any(segment.supervised for segment in segments)
    # What training shows up to the answer is what use shows, but for the space that the answer takes along.
    assert GOLDEN[name].split("«")[0].rstrip(" ") == PROMPTS[name]


@pytest.mark.parametrize("name", TEMPLATES)
def test_system_text(name: str) -> None:
    turns = (Turn("system", ("Be brief.",)), Turn("user", ("Hi",)))
    assert rendered_text(bound(name).render(turns, add_generation_prompt=True)) == SYSTEMS[name]


@pytest.mark.parametrize("name", TEMPLATES)
def test_json_round_trip(name: str) -> None:
    assert ChatTemplate.from_json(TEMPLATES[name].to_json()) == TEMPLATES[name]


@pytest.mark.parametrize("name", TEMPLATES)
@given(text=st.text(min_size=1))
def test_whatever_somebody_types_is_one_content_segment(name: str, text: str) -> None:
    segments = bound(name).render((Turn("user", (text,)), Turn("assistant", (text,))))
    contents = [segment for segment in segments if segment.kind == "content"]
    assert [segment.text for segment in contents] == [text, text]
    assert [segment.supervised for segment in contents] == [False, True]


def test_a_caption_follows_its_picture_at_once_in_plain() -> None:
    turns = (Turn("user", (ImagePart(0),)), Turn("assistant", ("a dog",)))
    assert marked(bound("plain"), turns) == "<s><image>«a dog</s>»"


def test_only_pictures_that_open_a_conversation_are_its_prefix() -> None:
    later = (Turn("user", ("a", ImagePart(0))), Turn("assistant", ("b",)))
    assert marked(bound("prefix"), later) == "<s>a<image> «b</s>»"
    both = (Turn("user", (ImagePart(1), ImagePart(0))), Turn("assistant", ("b",)))
    segments = bound("prefix").render(both)
    assert [segment.image for segment in segments[:2]] == [1, 0]
    assert marked(bound("prefix"), both) == "<image><image><s>«b</s>»"


def test_what_a_tokenizer_lacks_is_listed() -> None:
    with pytest.raises(RecipeError, match=r"'<\|im_start\|>', '<\|im_end\|>', which the tokenizer lacks"):
        TEMPLATES["chatml"].bind(bos=None, eos="</s>", vocabulary={"</s>"})
    with pytest.raises(RecipeError, match="an end token"):
        TEMPLATES["plain"].bind(bos=None, eos=None, vocabulary=set())


def test_mistakes_are_named() -> None:
    with pytest.raises(
        RecipeError, match=r"no template 'vicuna' \(did you mean 'vicuna_v[01]'\?\); expected one of plain"
    ):
        ChatTemplate.from_name("vicuna")
    with pytest.raises(DataError, match="system turn stands after"):
        bound("plain").render((Turn("user", ("a",)), Turn("system", ("b",))))
    with pytest.raises(DataError, match="no chat template"):
        ChatTemplate.from_json("[]")
