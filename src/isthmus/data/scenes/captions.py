"""What can be said about a scene: captions, from everything in it to one relation."""

from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.scene import Scene, Thing
from isthmus.data.scenes.vocabulary import NUMBERS, SHAPES


def captions(scene: Scene) -> list[str]:
    """Return true captions of a scene, marks apart from words by a space.

    The first names every thing with its size, colour, shape and place in reading order; the second says the
    same in a drawn order and other words. Then follow one about a single thing and, where the scene allows, one
    that relates two things and one that counts.
    """
    dice = Dice("captions", scene.key)
    phrases = [f"{_described(thing)} at the {scene.place(thing)}" for thing in scene.in_reading_order()]
    said = [
        f"{listed(phrases)} .",
        f"{_placed_first(scene, dice)} .",
        _single(scene, dice.pick(scene.things)),
    ]
    for thing in dice.shuffled(scene.things):
        related = _related(scene, thing, dice)
        if related:
            said.append(related)
            break
    repeated = [thing for thing in scene.in_reading_order() if scene.count(thing.pair) > 1]
    if repeated:
        colour, shape = repeated[0].pair
        said.append(f"there are {NUMBERS[scene.count(repeated[0].pair) - 1]} {colour} {SHAPES[shape]} .")
    return said


def region_caption(thing: Thing) -> str:
    """Return what is said of one thing alone: nothing of its place, which a mask would give away."""
    return f"there is {_described(thing)} ."


def phrases(scene: Scene) -> list[str]:
    """Return each thing as bare words, such as `top left large red square`, in a drawn order."""
    dice = Dice("phrases", scene.key)
    return [
        f"{scene.place(thing)} {thing.size} {thing.colour} {thing.shape}"
        for thing in dice.shuffled(scene.things)
    ]


def _described(thing: Thing) -> str:
    """Return a thing as a phrase, such as `a large red square`."""
    return f"a {thing.size} {thing.colour} {thing.shape}"


def listed(phrases: list[str]) -> str:
    """Return phrases joined by commas and a last `and`."""
    return " and ".join([part for part in (" , ".join(phrases[:-1]), phrases[-1]) if part])


def _placed_first(scene: Scene, dice: Dice) -> str:
    """Return the whole scene, place before thing, in a drawn order."""
    return listed(
        [f"at the {scene.place(thing)} is {_described(thing)}" for thing in dice.shuffled(scene.things)]
    )


def _single(scene: Scene, thing: Thing) -> str:
    """Return a sentence about one thing."""
    return f"there is {_described(thing)} at the {scene.place(thing)} ."


def _related(scene: Scene, thing: Thing, dice: Dice) -> str | None:
    """Return how a thing stands to another, both the only ones of their pair; None where there is none."""
    others = [other for other in scene.things if other is not thing and scene.count(other.pair) == 1]
    if scene.count(thing.pair) > 1 or not others:
        return None
    other = dice.pick(others)
    relation = dice.pick(scene.relation(thing, other))
    return f"the {thing.colour} {thing.shape} is {relation} the {other.colour} {other.shape} ."
