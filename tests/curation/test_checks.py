"""What becomes of replies: each check has rows that pass and rows that fail it, and the shipped examples pass them all."""

import json
import shutil
from pathlib import Path

import pytest

from isthmus.config.instructions import KINDS
from isthmus.core.errors import DataError
from isthmus.curation.instructions.checks import Rejected, checked
from isthmus.curation.instructions.facts import Facts, Labelled
from isthmus.curation.instructions.prompts import SHIPPED, Prompts
from isthmus.curation.instructions.rows import Rows, assemble, usable
from isthmus.curation.instructions.vocabulary import Vocabulary, plural, read_synonyms
from isthmus.curation.instructions.writer import Reply, Request

WHOLE = (0.0, 0.0, 1.0, 1.0)
VOCABULARY = Vocabulary(["person", "dog", "hot dog", "dining table", "knife", "bus"], read_synonyms())


def facts(*labels: str, name: str = "a") -> Facts:
    boxes = tuple(Labelled(label=label, box=WHOLE) for label in labels)
    return Facts(id=name, image=f"{name}.jpg", origin=f"row {name}", captions=("A dog runs.",), boxes=boxes)


def reply(*exchanges: tuple[str, str]) -> Reply:
    turns = [{"question": question, "answer": answer} for question, answer in exchanges]
    return Reply(text=json.dumps({"turns": turns}))


def reason(given: Reply, about: Facts | None = None) -> str:
    found = checked(given, about or facts("dog"), VOCABULARY)
    return found.reason if isinstance(found, Rejected) else ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"turns": [{"question": "What runs?", "answer": "A dog."}]}', ""),
        ('```json\n{"turns": [{"question": "What runs?", "answer": "A dog."}]}\n```', ""),
        ("Sure! Here is a talk about the picture.", "no JSON"),
        ('Sure: {"turns": [{"question": "What runs?", "answer": "A dog."}]}', "no JSON"),
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"turns": []}', "another form"),
        ('[{"question": "What runs?", "answer": "A dog."}]', "another form"),
        ('{"turns": [{"question": "What runs?"}]}', "another form"),
        ('{"turns": [{"question": "What runs?", "answer": 3}]}', "another form"),
        ('{"turns": [{"question": "<image> What runs?", "answer": "A dog."}]}', "another form"),
        ('{"turns": [{"question": "What runs?", "answer": "  "}]}', "empty answer"),
        ('{"turns": [{"question": "What runs?", "answer": "..."}]}', "empty answer"),
    ],
)
def test_form(text: str, expected: str) -> None:
    assert reason(Reply(text=text)) == expected


def test_a_request_that_was_refused_is_listed_as_such() -> None:
    assert reason(Reply(text="", refused="HTTP 400")) == "refused by the writer"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What runs?", ""),
        ("Describe the picture in detail.", ""),
        ("And the dog?", ""),
        ("A dog runs.", "does not ask first"),
        ("", "does not ask first"),
    ],
)
def test_the_first_turn_asks(question: str, expected: str) -> None:
    assert reason(reply((question, "It runs."), ("So.", "Yes."))) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A dog runs.", ""),
        ("The caption says that a dog runs.", "speaks of captions or boxes"),
        ("Its bounding box is in the middle.", "speaks of captions or boxes"),
        ("According to the description a dog runs.", "speaks of captions or boxes"),
        ("From the provided sentences: a dog runs.", "speaks of captions or boxes"),
        ("It is at [0.1, 0.2, 0.3, 0.4].", "speaks of captions or boxes"),
        ("The coordinates put it on the left.", "speaks of captions or boxes"),
        ("The dog sits in a cardboard box.", ""),
        ("The dog is listed nowhere and costs 0.5, I think.", ""),
    ],
)
def test_nothing_tells_where_it_was_known_from(answer: str, expected: str) -> None:
    assert reason(reply(("What runs?", answer))) == expected


@pytest.mark.parametrize(
    ("exchange", "labels", "expected"),
    [
        (("What runs?", "Two dogs."), ["dog"], ""),
        (("What runs?", "A puppy."), ["dog"], ""),
        (("What runs?", "The women's dog."), ["dog"], "women"),
        (("What runs?", "The women's dog."), ["dog", "person"], ""),
        (("What is there?", "Knives and buses."), ["dog"], "knives, buses"),
        (("What is there?", "A hot dog."), ["hot dog"], ""),
        (("What is there?", "A hot dog."), ["dog"], "hot dog"),
        (("What is there?", "A table."), ["dining table"], ""),
        (("Is there a bus?", "No, there is only a dog."), ["dog"], ""),
        (("Is there a bus?", "Yes, next to the dog."), ["dog"], "bus"),
        (("Is there a bus?", "No, but a man."), ["dog"], ""),
        (("What is there?", "A dog, and no bus or knife."), ["dog"], ""),
        (("What is there?", "A dog on a doghouse carpet."), ["dog"], ""),
    ],
)
def test_only_things_with_a_box_are_named(
    exchange: tuple[str, str], labels: list[str], expected: str
) -> None:
    found = checked(reply(exchange), facts(*labels), VOCABULARY)
    assert (found.found if isinstance(found, Rejected) else "") == expected


@pytest.mark.parametrize(
    ("labels", "answer", "expected"),
    [
        (["dog"], "A dog and a zebra.", "zebra"),
        (["dog"], "A dog with an orange collar.", ""),
        (["dog"], "A man with his dog.", ""),  # a caption says so, and boxes of the set are dogs' alone
        (["dog", "person"], "A man with his dog.", "man"),  # another picture has a box of a person
        (["red ring"], "A dog and a zebra.", ""),  # a world of other things
    ],
)
def test_common_things_are_known_whatever_the_set_has(labels: list[str], answer: str, expected: str) -> None:
    one = Facts(
        id="a",
        image="a.jpg",
        origin="row a",
        captions=("A man walks.",),
        boxes=(Labelled(label=labels[0], box=WHOLE),),
    )
    found = checked(reply(("What is there?", answer)), one, Vocabulary(labels, read_synonyms()))
    assert (found.found if isinstance(found, Rejected) else "") == expected


def test_plurals() -> None:
    names = ("dog", "bus", "knife", "pony", "boy", "wine glass", "cross")
    assert list(map(plural, names)) == [
        "dogs",
        "buses",
        "knives",
        "ponies",
        "boys",
        "wine glasses",
        "crosses",
    ]


@pytest.mark.parametrize(("repeats", "kept"), [(False, 1), (True, 2)])
def test_the_same_words_about_two_pictures_are_a_duplicate_of_a_model(repeats: bool, kept: int) -> None:
    requests = [Request(facts=facts("dog", name=name), kind="detail", messages=()) for name in ("a", "b")]
    replies = {request.key: reply(("What runs?", "A dog.")) for request in requests}
    rows = Rows()
    assemble(requests, replies, rows, VOCABULARY, repeats=repeats)
    assert len(rows.kept) == kept
    assert [reject["reason"] for reject in rows.rejects] == ["duplicate"] * (2 - kept)


def test_the_shipped_examples_pass_their_own_checks() -> None:
    prompts = Prompts.read()
    for kind in KINDS:
        assert len(prompts.examples[kind]) == 2
        for example in prompts.examples[kind]:
            assert example.facts.problem() is None
            labels = {box.label for other in prompts.examples["detail"] for box in other.facts.boxes}
            found = checked(Reply(text=example.reply), example.facts, Vocabulary(labels, read_synonyms()))
            assert not isinstance(found, Rejected), (kind, found)
    assert len(set(prompts.detail_questions)) == len(prompts.detail_questions) >= 5


@pytest.mark.parametrize(
    ("kind", "turns", "says"),
    [
        ("conversation", None, "no list 'turns'"),
        ("detail", [], "no list 'turns'"),
        ("detail", "What?", "no list 'turns'"),
        ("reasoning", [{"question": "Why?"}], "without the texts 'question' and 'answer'"),
        ("reasoning", [{"question": "Why\u2028so?", "answer": "So."}], ""),  # a line to some, not to JSON
    ],
)
def test_an_example_without_questions_and_answers_is_refused(
    kind: str, turns: object, says: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "prompts")
    row = {"image": "a.jpg", "captions": ["A dog."], "boxes": [], "turns": turns}
    (folder / f"{kind}.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    if not says:
        assert Prompts.read(folder).examples["reasoning"][0].reply == json.dumps({"turns": turns})
        return
    with pytest.raises(DataError, match=rf"{kind}\.jsonl line 1 is no example: .*{says}"):
        Prompts.read(folder)


def bad(**changes: object) -> Facts:
    return Facts(
        id=str(changes.get("id", "b")),
        image="b.jpg",
        origin="row 2",
        captions=changes.get("captions", ("A dog.",)),  # type: ignore[arg-type]
        boxes=(Labelled(label="dog", box=changes.get("box", WHOLE)),),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (bad(captions=()), "an empty caption"),
        (bad(captions=("A dog.", " ")), "an empty caption"),
        (bad(box=(0.2, 0.2, 1.3, 0.5)), "outside the picture"),
        (bad(box=(-0.1, 0.2, 0.3, 0.5)), "outside the picture"),
        (bad(box=(float("nan"), 0.2, 0.3, 0.5)), "outside the picture"),
        (bad(box=(0.2, 0.2, 0.2, 0.5)), "without area"),
        (bad(box=(0.4, 0.2, 0.2, 0.5)), "without area"),
        (bad(id="a"), "has the id 'a' of row a"),
        (facts("dog"), "says the same as row a"),
    ],
)
def test_facts_that_nothing_true_can_be_said_of_are_skipped_and_named(found: Facts, says: str) -> None:
    rows = Rows()
    assert [one.id for one in usable([facts("dog"), found], rows)] == ["a"]
    assert [reject["reason"] for reject in rows.rejects] == ["unusable facts"]
    assert says in rows.rejects[0]["found"]


def test_too_many_unusable_facts_stop_before_anything_is_asked() -> None:
    with pytest.raises(DataError, match=r"2 of 3 samples .* an empty caption"):
        usable([facts("dog"), bad(captions=()), bad(captions=(), id="c")], Rows())
    with pytest.raises(
        DataError, match=r"the only picture cannot be written about: row 2 has an empty caption"
    ):
        usable([bad(captions=())], Rows())
    with pytest.raises(DataError, match="no picture to write about"):
        usable([], Rows())
