"""A scene: things on a canvas, as numbers and words, before anything is drawn."""

from dataclasses import dataclass
from typing import NamedTuple

from isthmus.core.sizes import Size
from isthmus.data.scenes.vocabulary import Pair


class Point(NamedTuple):
    """A place on the canvas in pixels from its top left corner."""

    x: float
    y: float


class Box(NamedTuple):
    """The edges of the smallest upright rectangle around something, in pixels from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing: its words (colour, shape, size) and how exactly it is drawn.

    `radius` is in pixels, `angle` in degrees clockwise, `rgb` in 0..255; `box` surrounds the whole thing,
    hidden parts too. `outline` holds the corners of a thing that is none of the named shapes, in units of its radius.
    """

    colour: str
    shape: str
    size: str
    centre: Point
    radius: float
    angle: float
    rgb: tuple[int, int, int]
    box: Box
    outline: tuple[Point, ...] = ()

    @property
    def pair(self) -> Pair:
        """The thing's composition."""
        return Pair(self.colour, self.shape)


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a canvas, from the farthest to the nearest: a later one hides what it overlaps.

    `background` is red, green and blue in 0..255; `key` names the scene's own draws (which words its
    captions use).
    """

    things: tuple[Thing, ...]
    canvas: Size
    background: tuple[int, int, int]
    key: int

    def place(self, thing: Thing) -> str:
        """Return the quarter of the canvas that holds the thing's centre, such as `top left`."""
        row = "top" if thing.centre.y * 2 < self.canvas.height else "bottom"
        column = "left" if thing.centre.x * 2 < self.canvas.width else "right"
        return f"{row} {column}"

    def relation(self, thing: Thing, anchor: Thing) -> tuple[str, ...]:
        """Return how a thing stands to one in another half or quarter, such as `("left of", "above")`."""
        middle_x, middle_y = self.canvas.width / 2, self.canvas.height / 2
        left, top = thing.centre.x < middle_x, thing.centre.y < middle_y
        across = ("left of" if left else "right of",) if left != (anchor.centre.x < middle_x) else ()
        along = ("above" if top else "below",) if top != (anchor.centre.y < middle_y) else ()
        return across + along

    def count(self, pair: Pair) -> int:
        """Return how many things of this composition the scene shows."""
        colour, shape = pair
        return len([1 for thing in self.things if thing.colour == colour and thing.shape == shape])

    def in_reading_order(self) -> list[Thing]:
        """Return the things from top left to bottom right."""
        return sorted(
            self.things, key=lambda thing: (self.place(thing).split()[0] == "bottom", thing.centre.x)
        )
