"""Draw up a scene: which things, how big, where, and what hides what."""

import math
from dataclasses import dataclass

from isthmus.core.sizes import Size
from isthmus.data.scenes import outlines
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.scene import Point, Scene, Thing
from isthmus.data.scenes.vocabulary import COLOURS, PLACES, SIZES, Pair

INNER = 0.36
"""The farthest a centre is from its nearer edge, as a fraction of the side. Things of one half then differ by
at most 0.2 of the side, things of different halves by at least 0.28: `left of` is never a matter of taste."""
OUTER = 0.16
MAX_THINGS = 4
ATTEMPTS = 12
_SIDES = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}


@dataclass(frozen=True, slots=True)
class Order:
    """What a scene has to hold: `copies` of the pair `subject` among `num_things`, the rest of `others`.

    The first thing of the subject has the given place and size, where there are any; `neighbour` is a shape
    and a relation that one of the others must have to it. `overlap` is the share of two things' reach that
    may coincide; things of one colour are kept apart where there is room.
    """

    subject: Pair
    copies: int
    num_things: int
    others: tuple[Pair, ...]
    canvas: Size
    overlap: float
    place: str | None = None
    size: str | None = None
    neighbour: tuple[str, str] | None = None


def compose(dice: Dice, order: Order) -> Scene:
    """Return a scene as ordered, at most one thing in each quarter of the canvas."""
    pairs = [order.subject] * order.copies
    rest = tuple(pair for pair in order.others if pair != order.subject)
    if order.neighbour:
        pairs.append(dice.pick([pair for pair in rest if pair.shape == order.neighbour[0]]))
    while len(pairs) < order.num_things:
        pairs.append(balanced_pick(dice, rest))
    sizes = [order.size or dice.pick(tuple(SIZES)), *(dice.pick(tuple(SIZES)) for _ in pairs[1:])]
    places = _places(dice, order)[: len(pairs)]
    centres = _centres(dice, order, pairs, sizes, places)
    things = [_thing(dice, *each, order.canvas) for each in zip(pairs, sizes, centres, strict=True)]
    light = dice.between(222, 250)
    red, green, blue = (round(light + dice.between(-6, 5)) for _ in range(3))
    return Scene(tuple(dice.shuffled(things)), order.canvas, (red, green, blue), dice.key())


def balanced_pick(dice: Dice, pairs: tuple[Pair, ...]) -> Pair:
    """Return one of the pairs so that every shape is as likely as the others."""
    shape = dice.pick(sorted({pair.shape for pair in pairs}))
    return dice.pick([pair for pair in pairs if pair.shape == shape])


def _places(dice: Dice, order: Order) -> list[str]:
    """Return the places in the order in which things take them: the subject's, the neighbour's, the rest."""
    places = dice.shuffled(PLACES)
    if order.place:
        places.sort(key=lambda place: place != order.place)
    if order.neighbour:
        side = _SIDES[order.neighbour[1]]
        places.sort(key=lambda place: side in place)
        there = dice.pick(places[2:])
        places = [places[0], there, *(place for place in places[1:] if place != there)]
    return places


def moved(thing: Thing, centre: Point) -> Thing:
    """Return the same thing with its centre elsewhere."""
    box = outlines.box(thing.shape, centre, thing.radius, thing.angle)
    return Thing(thing.colour, thing.shape, thing.size, centre, thing.radius, thing.angle, thing.rgb, box)


def _thing(dice: Dice, pair: Pair, size: str, centre: Point, canvas: Size) -> Thing:
    """Return a thing whose colour, radius and angle stray a little, so that no two are alike."""
    radius = min(canvas) * SIZES[size] * dice.between(0.96, 1.04)
    angle = dice.between(-12, 12)
    red, green, blue = (
        min(255, max(0, round(level + dice.between(-14, 14)))) for level in COLOURS[pair.colour]
    )
    box = outlines.box(pair.shape, centre, radius, angle)
    return Thing(*pair, size, centre, radius, angle, (red, green, blue), box)


def _centres(dice: Dice, order: Order, pairs: list[Pair], sizes: list[str], places: list[str]) -> list[Point]:
    """Return a centre in each place; after too many crowded tries, the outermost ones."""
    for _ in range(ATTEMPTS):
        centres = [
            _centre(dice, size, place, order.canvas) for size, place in zip(sizes, places, strict=True)
        ]
        if not _crowded(order, pairs, sizes, centres):
            return centres
    return [_centre(None, size, place, order.canvas) for size, place in zip(sizes, places, strict=True)]


def _centre(dice: Dice | None, size: str, place: str, canvas: Size) -> Point:
    """Return a drawn centre in a place, or the outermost one where there are no dice."""
    reach = outlines.REACH * SIZES[size] * 1.04 * min(canvas)
    row, column = place.split()
    fractions = []
    for side, far in ((canvas.width, column == "right"), (canvas.height, row == "bottom")):
        nearest = max(OUTER, reach / side)
        fraction = nearest if dice is None else dice.between(nearest, INNER)
        fractions.append(side * (1 - fraction if far else fraction))
    return Point(*fractions)


def _crowded(order: Order, pairs: list[Pair], sizes: list[str], centres: list[Point]) -> bool:
    """Return whether two things overlap more than allowed, or two things of one colour touch."""
    side = min(order.canvas)
    for one in range(len(pairs)):
        for other in range(one):
            reach = 1.1 * side * (SIZES[sizes[one]] + SIZES[sizes[other]])
            alike = pairs[one].colour == pairs[other].colour
            allowed = 0.0 if alike else order.overlap
            if math.dist(centres[one], centres[other]) < reach * (1 - allowed):
                return True
    return False
