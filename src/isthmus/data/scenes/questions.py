"""What can be asked about a scene, so that exactly one answer is true.

The mix gives little to an answerer that never sees the picture: for each text the answers are about equally
frequent, because `goals` deals them evenly and every colour and every shape among the held-out pairs comes
twice.
"""

from dataclasses import dataclass

from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.goals import Goal
from isthmus.data.scenes.scene import Scene, Thing
from isthmus.data.scenes.vocabulary import NUMBERS, RELATIONS, SHAPES, Pair, with_article


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its one true answer.

    `kind` is one of `vocabulary.KINDS`, `picture` or `motion` for series and clips, or `thing`, which only talks have;
    `about` is the composition asked about, in the validation and test splits always a pair held out for that split.
    """

    text: str
    answer: str
    kind: str
    about: Pair


def of_kind(scene: Scene, kind: str, subjects: tuple[Pair, ...]) -> list[Question]:
    """Return every question of a kind about things of these pairs (existence: one, maybe absent)."""
    things = [thing for thing in scene.in_reading_order() if thing.pair in subjects]
    match kind:
        case "colour":
            return _named(scene, things) + _placed(scene, things, "colour")
        case "shape":
            return _coloured(scene, things) + _placed(scene, things, "shape")
        case "count":
            return [_count(scene, pair) for pair in sorted({thing.pair for thing in things})]
        case "position":
            return [_position(scene, thing) for thing in _only_ones(scene, things)]
        case "size":
            return [_size(thing) for thing in _only_ones(scene, things)]
        case "relation":
            return [
                question
                for thing in _only_ones(scene, things)
                for question in relations(scene, thing, " ".join(thing.pair))
            ]
        case "existence":
            return _existence(scene, things, subjects)
    raise AssertionError(f"No questions of kind {kind!r}.")


def matching(scene: Scene, aim: Goal) -> Question | None:
    """Return the question a goal means, or None where the scene does not give it the goal's answer."""
    if aim.kind == "existence":
        held = (scene.count(aim.about) > 0) == (aim.answer == "yes")
        return _exists(aim.about, aim.answer) if held else None
    for question in of_kind(scene, aim.kind, (aim.about,)):
        if question.answer == aim.answer and aim.wording in question.text:
            return question
    return None


def described(scene: Scene) -> list[Question]:
    """Return for each thing, by its place, the question what it is, whose answer says size, colour and shape."""
    return [
        Question(
            f"what is at the {scene.place(thing)} ?",
            f"a {thing.size} {thing.colour} {thing.shape}",
            "thing",
            thing.pair,
        )
        for thing in scene.in_reading_order()
    ]


def _only_ones(scene: Scene, things: list[Thing]) -> list[Thing]:
    """Return the things that no other thing of the scene matches in colour and shape."""
    return [thing for thing in things if scene.count(thing.pair) == 1]


def _named(scene: Scene, things: list[Thing]) -> list[Question]:
    """Return the colour questions that name a shape the scene shows once."""
    shapes = [thing.shape for thing in scene.things]
    return [
        Question(f"what colour is the {thing.shape} ?", thing.colour, "colour", thing.pair)
        for thing in things
        if shapes.count(thing.shape) == 1
    ]


def _coloured(scene: Scene, things: list[Thing]) -> list[Question]:
    """Return the shape questions that name a colour the scene shows once."""
    colours = [thing.colour for thing in scene.things]
    return [
        Question(f"what shape is the {thing.colour} thing ?", thing.shape, "shape", thing.pair)
        for thing in things
        if colours.count(thing.colour) == 1
    ]


def _placed(scene: Scene, things: list[Thing], kind: str) -> list[Question]:
    """Return the colour or shape questions that name a place; each place holds one thing at most."""
    return [
        Question(
            f"what {kind} is the thing at the {scene.place(thing)} ?",
            thing.colour if kind == "colour" else thing.shape,
            kind,
            thing.pair,
        )
        for thing in things
    ]


def _count(scene: Scene, pair: Pair) -> Question:
    """Return how many things of a pair there are."""
    text = f"how many {pair.colour} {SHAPES[pair.shape]} are there ?"
    return Question(text, NUMBERS[scene.count(pair) - 1], "count", pair)


def _position(scene: Scene, thing: Thing) -> Question:
    """Return where a thing is."""
    return Question(
        f"where is the {thing.colour} {thing.shape} ?", scene.place(thing), "position", thing.pair
    )


def _size(thing: Thing) -> Question:
    """Return how big a thing is."""
    return Question(f"how big is the {thing.colour} {thing.shape} ?", thing.size, "size", thing.pair)


def relations(scene: Scene, anchor: Thing, name: str) -> list[Question]:
    """Return, for each side of a thing that holds exactly one other thing, what shape that is.

    `name` is what the text calls the thing.
    """
    questions = []
    for relation in RELATIONS:
        there = [thing for thing in scene.things if relation in scene.relation(thing, anchor)]
        if len(there) == 1:
            text = f"what is {relation} the {name} ?"
            questions.append(Question(text, there[0].shape, "relation", anchor.pair))
    return questions


def _existence(scene: Scene, things: list[Thing], subjects: tuple[Pair, ...]) -> list[Question]:
    """Return one yes-or-no question by a fair coin; `no` mostly names a pair a thing half resembles."""
    dice = Dice("existence", scene.key)
    if dice.chance(0.5):
        about, answer = dice.pick(things).pair, "yes"
    else:
        absent = [pair for pair in subjects if scene.count(pair) == 0]
        seen = {word for thing in scene.things for word in thing.pair}
        near = [pair for pair in absent if seen.intersection(pair)]
        about, answer = dice.pick(near if near and dice.chance(0.7) else absent), "no"
    return [_exists(about, answer)]


def _exists(about: Pair, answer: str) -> Question:
    """Return whether a pair is in the picture."""
    return Question(f"is there {with_article(' '.join(about))} ?", answer, "existence", about)
