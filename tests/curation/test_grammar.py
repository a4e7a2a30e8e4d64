"""The grammar writer: every sentence it writes is read again and held against the drawn scene by rules of the test's own."""

import re
from itertools import pairwise

import pytest

from isthmus.config.instructions import KINDS
from isthmus.core.errors import UsageError
from isthmus.curation.instructions.facts import Facts
from isthmus.curation.instructions.grammar import GrammarWriter, written
from isthmus.curation.instructions.writer import Request
from isthmus.data.scenes import TRAINING_PAIRS, Scene, Scenes, Thing, words

COUNTS = ["one", "two", "three", "four"]
PLACE = r"(top|bottom) (left|right)"
RELATION = r"left of|right of|above|below"


def at(scene: Scene, row: str, column: str) -> list[Thing]:
    """The things in a quarter of the canvas."""
    height, width = scene.canvas
    return [
        thing
        for thing in scene.things
        if (thing.centre.y < height / 2) == (row == "top")
        and (thing.centre.x < width / 2) == (column == "left")
    ]


def named(scene: Scene, name: str) -> list[Thing]:
    """The things that these words fit: any of size, colour and shape, or `thing`."""
    wanted = set(name.split()) - {"a", "an", "the", "thing"}
    return [thing for thing in scene.things if wanted <= {thing.size, thing.colour, thing.shape}]


def the_one(scene: Scene, name: str) -> Thing:
    """The only thing that these words fit."""
    (found,) = named(scene, name)
    return found


def stands(thing: Thing, relation: str, other: Thing, scene: Scene) -> bool:
    """Whether a thing is so to another: in another half of the canvas, on that side."""
    height, width = scene.canvas
    across = (thing.centre.x < width / 2, other.centre.x < width / 2)
    along = (thing.centre.y < height / 2, other.centre.y < height / 2)
    return {
        "left of": across == (True, False),
        "right of": across == (False, True),
        "above": along == (True, False),
        "below": along == (False, True),
    }[relation]


def holds(statement: str, scene: Scene) -> bool:
    """Whether a sentence without its stop is true of a scene."""
    relation = re.fullmatch(rf"the (\w+ \w+) is ({RELATION}) the (\w+ \w+)", statement)
    if relation:
        first, how, second = relation.groups()
        return stands(the_one(scene, first), how, the_one(scene, second), scene)
    parts = re.split(r" , | and ", statement)
    return all(part_holds(part, scene) for part in parts)


def part_holds(part: str, scene: Scene) -> bool:
    for pattern in (
        rf"(?:an?|the) (?P<name>[\w ]+?) (?:is )?at the {PLACE}",
        rf"at the {PLACE} is (?P<name>an? [\w ]+)",
    ):
        found = re.fullmatch(pattern, part)
        if found:
            row, column = (
                found[2 if pattern.startswith("(?:an") else 1],
                found[3 if pattern.startswith("(?:an") else 2],
            )
            return any(thing in at(scene, row, column) for thing in named(scene, found["name"]))
    found = re.fullmatch(rf"({RELATION}) the (\w+ \w+) is a (\w+ \w+ \w+) at the {PLACE}", part)
    assert found, part
    how, anchor, name, row, column = found.groups()
    (thing,) = [one for one in at(scene, row, column) if one in named(scene, name)]
    return stands(thing, how, the_one(scene, anchor), scene)


def true_answer(question: str, scene: Scene) -> str:
    """The answer to a question, found from the things alone."""
    for pattern, answer in (
        (
            rf"what (colour|shape) is the thing at the {PLACE} \?",
            lambda w, r, c: getattr(at(scene, r, c)[0], w),
        ),
        (r"what colour is the (\w+) \?", lambda shape: the_one(scene, shape).colour),
        (r"what shape is the (\w+) thing \?", lambda colour: the_one(scene, colour).shape),
        (r"how big is the (\w+ \w+) \?", lambda name: the_one(scene, name).size),
        (r"is there an? (\w+ \w+) \?", lambda name: "yes" if named(scene, name) else "no"),
        (r"how many (\w+ )?(\w+?)(?:e?s) are there \?", lambda c, s: how_many(f"{c or ''}{s}", scene)),
        (rf"what is ({RELATION}) the (\w+ \w+) \?", lambda how, name: beside(how, name, scene).shape),
        (
            rf"what colour is the thing ({RELATION}) the (\w+ \w+) \?",
            lambda how, name: beside(how, name, scene).colour,
        ),
        (
            rf"how big is the thing ({RELATION}) the (\w+ \w+) \?",
            lambda how, name: beside(how, name, scene).size,
        ),
        (r"where is the (\w+ \w+) \?", lambda name: place(the_one(scene, name), scene)),
        (
            rf"is the (\w+ \w+) ({RELATION}) the (\w+ \w+) \?",
            lambda a, how, b: "yes" if stands(the_one(scene, a), how, the_one(scene, b), scene) else "no",
        ),
    ):
        found = re.fullmatch(pattern, question)
        if found:
            return answer(*found.groups())
    raise AssertionError(question)


def how_many(name: str, scene: Scene) -> str:
    whole = {"triangl": "triangle", "squar": "square", "circl": "circle"}
    colour_and_shape = [whole.get(word, word) for word in name.split()]
    return COUNTS[len(named(scene, " ".join(colour_and_shape))) - 1]


def beside(how: str, name: str, scene: Scene) -> Thing:
    (found,) = [thing for thing in scene.things if stands(thing, how, the_one(scene, name), scene)]
    return found


def place(thing: Thing, scene: Scene) -> str:
    rows = {
        (row, column)
        for row in ("top", "bottom")
        for column in ("left", "right")
        if thing in at(scene, row, column)
    }
    ((row, column),) = rows
    return f"{row} {column}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_statement_is_true_of_its_scene(split: str) -> None:
    world = Scenes(split=split, seed=3)
    statements = questions = 0
    for index in range(250):
        scene = world.scene(index)
        for exchange in (*written(scene, "conversation"), *written(scene, "reasoning")):
            answer, _, because = exchange.answer.partition(" , ")
            assert true_answer(exchange.question, scene) == answer, (exchange, scene)
            questions += 1
            if because:
                assert holds(because.removesuffix(" ."), scene), (because, scene)
                statements += 1
        (detail,) = written(scene, "detail")
        for statement in detail.answer.split(" . "):
            assert holds(statement.removesuffix(" ."), scene), (statement, scene)
            statements += 1
    assert (questions > 1000, statements > 700) == (True, True)


def test_the_reader_of_this_test_finds_what_is_false() -> None:
    world = Scenes(split="train", seed=3)
    found = 0
    for index in range(60):
        scene, other = world.scene(index), world.scene(index + 1)
        answer = written(other, "detail")[0].answer.split(" . ")[0].removesuffix(" .")
        found += not holds(answer, scene)
    assert found > 50


def test_it_speaks_the_world_s_words_and_training_names_no_held_out_pair() -> None:
    known = set(words())
    world = Scenes(split="train", seed=0)
    for index in range(300):
        scene = world.scene(index)
        for kind in KINDS:
            for exchange in written(scene, kind):
                said = f"{exchange.question} {exchange.answer}".split()
                assert set(said) <= known
                pairs = {pair for pair in pairwise(said) if pair in ALL_PAIRS}
                assert pairs <= set(TRAINING_PAIRS)


ALL_PAIRS = {
    (colour, shape)
    for colour in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
    for shape in ("circle", "square", "triangle", "star", "cross", "ring")
}


def test_both_answers_of_yes_or_no_are_about_as_frequent() -> None:
    world = Scenes(split="train", seed=1)
    answers = [
        exchange.answer
        for index in range(600)
        for exchange in written(world.scene(index), "conversation")
        if exchange.question.startswith("is there")
    ]
    assert len(answers) == 600
    assert 0.45 < answers.count("yes") / 600 < 0.55


def test_facts_of_real_pictures_are_refused() -> None:
    facts = Facts(id="a", image="a.jpg", origin="row 1", captions=("A dog runs.",), boxes=())
    with pytest.raises(UsageError, match="knows only the built-in world"):
        GrammarWriter().write(Request(facts=facts, kind="detail", messages=()))
