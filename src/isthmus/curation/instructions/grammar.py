"""The writer that needs no model: it knows the scene and says only what is so, in the words of the built-in world."""

from itertools import pairwise
from typing import final

from isthmus.config.instructions import Kind
from isthmus.core.errors import UsageError
from isthmus.curation.instructions.writer import Exchange, Reply, Request, Writer, as_reply
from isthmus.data.scenes import Scene, Thing
from isthmus.data.scenes.captions import captions
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.questions import of_kind
from isthmus.data.scenes.vocabulary import (
    KINDS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    TRAINING_PAIRS,
    Pair,
    with_article,
)

MOST_QUESTIONS = 5
"""Questions of a talk; LLaVA's have three to five."""

DETAIL_QUESTIONS = (
    "what is there ?",
    "what shows the picture ?",
    "what is there and where ?",
    "which shape is where ?",
)


@final
class GrammarWriter(Writer):
    """Writes about drawn scenes, true by construction."""

    def write(self, request: Request) -> Reply:
        """All exchanges of one kind about one scene.

        Raises:
            UsageError: The facts are of no drawn scene.
        """
        scene = request.facts.scene
        if scene is None:
            raise UsageError(
                "the grammar writer knows only the built-in world, and these facts are of other pictures; "
                "name a writer with --endpoint or --local, or write about scenes"
            )
        return as_reply(written(scene, request.kind))


def written(scene: Scene, kind: Kind) -> tuple[Exchange, ...]:
    """What the grammar says of a scene."""
    dice = Dice("instructions", kind, scene.key)
    match kind:
        case "conversation":
            return _conversation(scene, dice)
        case "detail":
            return (Exchange(question=dice.pick(DETAIL_QUESTIONS), answer=_detail(scene, dice)),)
        case "reasoning":
            return (dice.pick(_compared(scene, dice) or [_counted(scene, dice)]),)


def _conversation(scene: Scene, dice: Dice) -> tuple[Exchange, ...]:
    subjects = tuple(sorted({thing.pair for thing in scene.things}))
    asked = [question for kind in KINDS if kind != "existence" for question in of_kind(scene, kind, subjects)]
    asked = [one for one in asked if one.kind != "count" or one.answer != NUMBERS[0] or dice.chance(0.2)]
    chosen = dice.shuffled(asked)[: MOST_QUESTIONS - 1]
    talk = [Exchange(question=one.text, answer=one.answer) for one in chosen]
    return tuple(dice.shuffled([*talk, _exists(scene, dice)]))


def _exists(scene: Scene, dice: Dice) -> Exchange:
    """Whether there is a colour of one thing in the shape of another: both words are seen, so one alone says nothing.

    Nothing else is named than what the scene shows and the pairs that training may name.
    """
    shown = {thing.pair for thing in scene.things}
    mixed = [Pair(one.colour, other.shape) for one in scene.things for other in scene.things]
    absent = sorted(pair for pair in {*mixed} & {*TRAINING_PAIRS} if pair not in shown)
    near = [pair for pair in TRAINING_PAIRS if pair not in shown and pair.shape == scene.things[0].shape]
    there = dice.chance(0.5)
    pair = dice.pick(sorted(shown) if there else absent or near)
    question = f"is there {with_article(' '.join(pair))} ?"
    return Exchange(question=question, answer="yes" if there else "no")


def _detail(scene: Scene, dice: Dice) -> str:
    """Everything with its place, then how each thing that is the only one of its pair stands to another."""
    sentences = [captions(scene)[dice.pick((0, 1))]]
    only = [thing for thing in scene.in_reading_order() if scene.count(thing.pair) == 1]
    for thing, other in pairwise(only):
        relation = dice.pick(scene.relation(thing, other))
        sentences.append(f"the {_name(thing)} is {relation} the {_name(other)} .")
    return " ".join(sentences)


def _compared(scene: Scene, dice: Dice) -> list[Exchange]:
    """Questions that take two things and their places together; the answer first, then what it follows from."""
    only = [thing for thing in scene.in_reading_order() if scene.count(thing.pair) == 1]
    found = []
    for anchor in only:
        for relation in RELATIONS:
            there = [thing for thing in scene.things if relation in scene.relation(thing, anchor)]
            if len(there) == 1:
                found += _about_the_one(scene, anchor, relation, there[0])
        for other in only:
            if other is not anchor:
                found.append(_stands(scene, anchor, other, dice))
    return found


def _about_the_one(scene: Scene, anchor: Thing, relation: str, thing: Thing) -> list[Exchange]:
    because = (
        f"the {_name(anchor)} is at the {scene.place(anchor)} and {relation} the {_name(anchor)} is "
        f"a {thing.size} {_name(thing)} at the {scene.place(thing)} ."
    )
    asked = (
        (f"what colour is the thing {relation} the {_name(anchor)} ?", thing.colour),
        (f"how big is the thing {relation} the {_name(anchor)} ?", thing.size),
    )
    return [Exchange(question=question, answer=f"{answer} , {because}") for question, answer in asked]


def _stands(scene: Scene, thing: Thing, other: Thing, dice: Dice) -> Exchange:
    relation = dice.pick(RELATIONS)
    answer = "yes" if relation in scene.relation(thing, other) else "no"
    because = (
        f"the {_name(thing)} is at the {scene.place(thing)} and "
        f"the {_name(other)} is at the {scene.place(other)} ."
    )
    question = f"is the {_name(thing)} {relation} the {_name(other)} ?"
    return Exchange(question=question, answer=f"{answer} , {because}")


def _counted(scene: Scene, dice: Dice) -> Exchange:
    shape = dice.pick(scene.things).shape
    those = [thing for thing in scene.in_reading_order() if thing.shape == shape]
    named = " and ".join(f"{with_article(_name(thing))} at the {scene.place(thing)}" for thing in those)
    return Exchange(
        question=f"how many {SHAPES[shape]} are there ?", answer=f"{NUMBERS[len(those) - 1]} , {named} ."
    )


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"
