"""Scenes that lack one attribute: things in free colours that no text names, and coloured lumps, shapes without name.

In training a red thing is never a star. A model may then learn shapes only as far as colours leave them open, and
colours as far as shapes do; on held-out pairs both fail. Where one attribute is absent, the other has to be seen.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from isthmus.data.scenes import outlines, questions
from isthmus.data.scenes.captions import listed
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.questions import Question
from isthmus.data.scenes.scene import Scene, Thing
from isthmus.data.scenes.vocabulary import (
    COLOURS,
    NUMBERS,
    SHAPES,
    TEST_PAIRS,
    VALIDATION_PAIRS,
    with_article,
)

Lack = Literal["colour", "shape"]
LACKS: tuple[Lack, ...] = ("colour", "shape")

NEAR = 80.0
"""Least distance, in red, green and blue of 0..255, of a free colour from the colours held out with its shape. A drawn
thing strays from its colour by 24 at most."""

CANVAS = (236, 236, 236)
"""A middling canvas; free colours keep the same distance from it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A scene, what can be said about it, what can be asked, and its things as phrases in a drawn order.

    Where the scene lacks an attribute nothing names it.
    """

    scene: Scene
    lack: Lack | None
    captions: tuple[str, ...]
    questions: tuple[Question, ...]
    phrases: tuple[str, ...]


def without(scene: Scene, lack: Lack) -> Told:
    """Return a scene with its things in free colours, or as coloured lumps, with captions and questions."""
    dice = Dice(f"without {lack}", scene.key)
    drawn = replace(scene, things=tuple(_plain(thing, lack, dice) for thing in scene.things))
    phrases = [
        f"{drawn.place(thing)} {thing.size} {_name(thing, lack)}" for thing in dice.shuffled(drawn.things)
    ]
    return Told(drawn, lack, tuple(captions(drawn, lack)), tuple(_asked(drawn, lack, dice)), tuple(phrases))


def captions(scene: Scene, lack: Lack) -> list[str]:
    """Return captions without colours, or without shapes: two complete ones, in two orders, and one without sizes."""
    dice = Dice(f"captions without {lack}", scene.key)
    whole = [
        f"a {thing.size} {_name(thing, lack)} at the {scene.place(thing)}"
        for thing in scene.in_reading_order()
    ]
    turned = [
        f"at the {scene.place(thing)} is a {thing.size} {_name(thing, lack)}"
        for thing in dice.shuffled(scene.things)
    ]
    placed = [
        f"{with_article(_name(thing, lack))} at the {scene.place(thing)}"
        for thing in dice.shuffled(scene.things)
    ]
    return [f"{listed(phrases)} ." for phrases in (whole, turned, placed)]


def _plain(thing: Thing, lack: Lack, dice: Dice) -> Thing:
    """Return the thing without its colour or without its shape."""
    if lack == "colour":
        return replace(thing, rgb=_free(dice, thing.shape))
    outline = outlines.lump(dice)
    box = outlines.around(outlines.corners(outline, thing.centre, thing.radius, thing.angle))
    return replace(thing, outline=outline, box=box)


def _free(dice: Dice, shape: str) -> tuple[int, int, int]:
    """Return any colour that stands out from the canvas, but none near one held out with the shape."""
    held = [COLOURS[pair.colour] for pair in VALIDATION_PAIRS + TEST_PAIRS if pair.shape == shape]
    while True:
        red, green, blue = (round(dice.between(20, 240)) for _ in range(3))
        if all(math.dist((red, green, blue), other) >= NEAR for other in (*held, CANVAS)):
            return red, green, blue


def _name(thing: Thing, lack: Lack) -> str:
    """Return a thing's name without what it lacks, such as `star` or `red thing`."""
    return thing.shape if lack == "colour" else f"{thing.colour} thing"


def _asked(scene: Scene, lack: Lack, dice: Dice) -> list[Question]:
    """Return the questions that have one true answer without the attribute."""
    kept = "shape" if lack == "colour" else "colour"
    names = [_name(thing, lack) for thing in scene.things]
    asked = []
    for thing in scene.things:
        name, place = _name(thing, lack), scene.place(thing)
        asked.append(
            Question(f"what {kept} is the thing at the {place} ?", getattr(thing, kept), kept, thing.pair)
        )
        if names.count(name) > 1:
            continue
        asked.append(Question(f"where is the {name} ?", place, "position", thing.pair))
        asked.append(Question(f"how big is the {name} ?", thing.size, "size", thing.pair))
        if lack == "colour":
            asked += questions.relations(scene, thing, name)
    return [*asked, *_present(scene, lack, names, dice)]


def _present(scene: Scene, lack: Lack, names: list[str], dice: Dice) -> list[Question]:
    """Return a yes-or-no question by a fair coin and, for shapes, the counts of those that come more than once."""
    thing = dice.pick(scene.things)
    absent = [
        name
        for name in (SHAPES if lack == "colour" else [f"{each} thing" for each in COLOURS])
        if name not in names
    ]
    name, answer = (
        (_name(thing, lack), "yes") if dice.chance(0.5) or not absent else (dice.pick(absent), "no")
    )
    asked = [Question(f"is there {with_article(name)} ?", answer, "existence", thing.pair)]
    if lack == "colour":
        for shape in sorted({thing.shape for thing in scene.things if names.count(thing.shape) > 1}):
            about = next(thing.pair for thing in scene.things if thing.shape == shape)
            asked.append(
                Question(
                    f"how many {SHAPES[shape]} are there ?", NUMBERS[names.count(shape) - 1], "count", about
                )
            )
    return asked
