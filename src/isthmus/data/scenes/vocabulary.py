"""What the world is made of and every word it speaks; which compositions each split may show and name."""

from typing import NamedTuple


class Pair(NamedTuple):
    """A composition: the colour and the shape of a thing."""

    colour: str
    shape: str


COLOURS = {
    "red": (214, 39, 40),
    "orange": (250, 140, 25),
    "yellow": (240, 208, 40),
    "green": (44, 150, 62),
    "blue": (40, 90, 215),
    "purple": (128, 60, 170),
    "pink": (244, 130, 190),
    "black": (35, 35, 38),
}
"""Each colour's mean red, green and blue in 0..255; a drawn thing strays a little from it."""

SHAPES = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}
"""Each shape and its plural."""

SIZES = {"small": 0.085, "medium": 0.135, "large": 0.205}
"""Each size and its radius as a fraction of the shorter side of the canvas."""

PLACES = ("top left", "top right", "bottom left", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
DIRECTIONS = ("left", "right", "up", "down")
NUMBERS = ("one", "two", "three", "four")
ORDINALS = ("first", "second", "third", "fourth")

KINDS = ("colour", "shape", "count", "position", "size", "relation", "existence")
"""Kinds of question about one picture; series of pictures add `picture`, clips add `motion`."""

_READ_COLOURS = "white brown teal cyan olive beige violet golden"
_READ_SHAPES = "heart moon arrow oval diamond drop"
READ_COLOURS = tuple(_READ_COLOURS.split())
"""Colours that texts without pictures name too; none is ever drawn."""

READ_SHAPES = {name: f"{name}s" for name in _READ_SHAPES.split()}
"""Shapes that texts without pictures name too, and what they call many; none is ever drawn."""

_SENTENCE_WORDS = (
    "a an and are at big colour does how is many move moves moving no picture shape shows the "
    "there thing way what where which yes , . ?"
)

TEST_PAIRS = (
    Pair("red", "circle"),
    Pair("red", "star"),
    Pair("green", "star"),
    Pair("green", "square"),
    Pair("purple", "square"),
    Pair("purple", "triangle"),
    Pair("pink", "triangle"),
    Pair("pink", "circle"),
)
"""Pairs only the test split shows, two of each colour and shape among them: one never gives the other."""

VALIDATION_PAIRS = (
    Pair("orange", "cross"),
    Pair("orange", "ring"),
    Pair("blue", "ring"),
    Pair("blue", "square"),
    Pair("yellow", "square"),
    Pair("yellow", "triangle"),
    Pair("black", "triangle"),
    Pair("black", "cross"),
)
"""Pairs only the validation split shows, built like the test pairs."""

TRAINING_PAIRS = tuple(
    Pair(colour, shape)
    for colour in COLOURS
    for shape in SHAPES
    if Pair(colour, shape) not in TEST_PAIRS + VALIDATION_PAIRS
)
"""Pairs every split may show, and the only ones that training shows or names."""

SUBJECTS = {"train": TRAINING_PAIRS, "val": VALIDATION_PAIRS, "test": TEST_PAIRS}
"""For each split, the pairs its questions are about."""


def words() -> tuple[str, ...]:
    """Return every word and mark of all captions, questions and answers about pictures, sorted."""
    names = (
        *COLOURS,
        *SHAPES,
        *SHAPES.values(),
        *SIZES,
        *PLACES,
        *RELATIONS,
        *DIRECTIONS,
        *NUMBERS,
        *ORDINALS,
    )
    return tuple(sorted({word for name in (*names, _SENTENCE_WORDS) for word in name.split()}))


def read_words() -> tuple[str, ...]:
    """Return every word that only texts without pictures say, sorted."""
    return tuple(sorted({*READ_COLOURS, *READ_SHAPES, *READ_SHAPES.values()}))


def with_article(phrase: str) -> str:
    """Return the phrase after `a` or `an`."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"
