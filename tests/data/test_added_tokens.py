"""Special tokens of a template that the tokenizer does not know: only the template can say them."""

import pytest

from isthmus.core.batch import IGNORED
from isthmus.core.errors import RecipeError
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.templates import EOC, ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer

TOKENIZER = train_tokenizer(["a red dog runs"] * 3, algorithm="bpe", vocabulary=300, lower=True)
IMAGE = len(TOKENIZER)


def codec(added: dict[str, int] | None) -> TextCodec:
    return TextCodec(
        tokenizer=TOKENIZER,
        template=ChatTemplate.from_name("flamingo"),
        placeholder_id=IMAGE,
        context=64,
        added=added,
    )


def test_each_answer_ends_with_the_token_and_learns_it() -> None:
    flamingo = codec({EOC: IMAGE + 1})
    talk = (
        Turn("user", (ImagePart(0),)),
        Turn("assistant", ("a dog",)),
        Turn("user", (ImagePart(1),)),
        Turn("assistant", ("red",)),
    )
    text = flamingo.encode(talk, tokens_per_image=[1, 1], origin="here")
    assert [index for index in text.ids if index >= IMAGE] == [IMAGE, IMAGE + 1, IMAGE, IMAGE + 1]
    learnt = [target for target in text.targets if target != IGNORED]
    assert learnt.count(IMAGE + 1) == 2
    assert IMAGE not in learnt
    assert flamingo.end_ids == (IMAGE + 1,)
    assert flamingo.decode(text.ids) == "a dog red"


def test_what_somebody_types_is_never_the_token() -> None:
    flamingo = codec({EOC: IMAGE + 1})
    talk = (Turn("user", (ImagePart(0), f"a {EOC} dog <image>")), Turn("assistant", (f"red {EOC}",)))
    text = flamingo.encode(talk, tokens_per_image=[1], origin="here")
    assert text.ids.count(IMAGE + 1) == 1
    assert text.ids.count(IMAGE) == 1


def test_a_model_without_the_token_refuses_the_template() -> None:
    with pytest.raises(
        RecipeError, match=r"template 'flamingo' needs '<\|endofchunk\|>', which the tokenizer lacks"
    ):
        codec(None)
