"""What each index asks: texts and answers dealt like cards, so that a few hundred questions are balanced.

Independent draws would leave some answers frequent by luck: over 500 questions the best picture-blind
answerer got 0.51 right with draws, 0.38 with dealing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.vocabulary import NUMBERS, PLACES, RELATIONS, SHAPES, SIZES, Pair

MIX = {
    "colour by name": 8,
    "colour by place": 11,
    "shape by name": 8,
    "shape by place": 11,
    "count": 16,
    "position": 17,
    "size": 12,
    "relation": 10,
    "existence": 7,
}
"""How many of a hundred consecutive questions are of each kind and wording."""

_BLOCK = tuple(deck for deck, share in MIX.items() for _ in range(share))


@dataclass(frozen=True, slots=True)
class Goal:
    """A question to be asked and what the scene must hold for its answer to be true.

    `wording` is a part of the question's text; `copies`, `place` and `size` are those of the thing asked
    about, where the answer or the text depends on them; `relation` is where a neighbour of the shape
    `answer` must be.
    """

    kind: str
    about: Pair
    answer: str
    wording: str
    copies: int = 1
    place: str | None = None
    size: str | None = None
    relation: str | None = None


def goal(seed: int, purpose: str, index: int, subjects: tuple[Pair, ...]) -> Goal:
    """Return the goal of an index: a block of a hundred indexes holds each kind as often as `MIX` says.

    Each kind deals its goals from a shuffled deck and shuffles again when the deck is through.
    """
    block, number = divmod(index, len(_BLOCK))
    order = Dice("block", seed, purpose, block).shuffled(_BLOCK)
    name = order[number]
    dealt = block * MIX[name] + order[:number].count(name)
    return _dealt(name, subjects, (seed, purpose), dealt)


def count_goal(seed: int, purpose: str, index: int, subjects: tuple[Pair, ...]) -> Goal:
    """Return a goal that asks how many there are of a pair, every pair and number as often."""
    return _dealt("count", subjects, (seed, f"{purpose} counts"), index)


def _dealt(name: str, subjects: tuple[Pair, ...], drawn_by: tuple[int | str, ...], number: int) -> Goal:
    """Return card `number` of a deck that is shuffled again whenever it is through."""
    passed, card = divmod(number, len(_deck(name, subjects)))
    return _shuffled(name, subjects, (*drawn_by, passed))[card]


@lru_cache(maxsize=256)
def _shuffled(name: str, subjects: tuple[Pair, ...], parts: tuple[int | str, ...]) -> list[Goal]:
    """Return a deck in the order that its name and these parts draw."""
    return Dice("deck", name, *parts).shuffled(_deck(name, subjects))


@cache
def _deck(name: str, subjects: tuple[Pair, ...]) -> tuple[Goal, ...]:
    """Return every goal of a kind and wording once."""
    return tuple(goal for pair in subjects for goal in _goals(name, pair))


def _goals(name: str, pair: Pair) -> Iterator[Goal]:
    """Yield the goals of a kind and wording about a pair, one for each text and answer."""
    colour, shape = pair
    match name:
        case "colour by name":
            yield Goal("colour", pair, colour, f"the {shape} ?")
        case "shape by name":
            yield Goal("shape", pair, shape, f"the {colour} thing")
        case "colour by place":
            yield from (Goal("colour", pair, colour, f"at the {place}", place=place) for place in PLACES)
        case "shape by place":
            yield from (Goal("shape", pair, shape, f"at the {place}", place=place) for place in PLACES)
        case "count":
            yield from (
                Goal("count", pair, word, colour, copies=n) for n, word in enumerate(NUMBERS, start=1)
            )
        case "position":
            yield from (Goal("position", pair, place, colour, place=place) for place in PLACES)
        case "size":
            yield from (Goal("size", pair, size, colour, size=size) for size in SIZES)
        case "relation":
            for relation in RELATIONS:
                yield from (
                    Goal("relation", pair, other, f"{relation} the", relation=relation) for other in SHAPES
                )
        case _:
            yield from (Goal("existence", pair, answer, f"{colour} {shape}") for answer in ("yes", "no"))


def resembling(dice: Dice, pair: Pair, subjects: tuple[Pair, ...]) -> Pair:
    """Return another subject, mostly one of the same colour or shape."""
    others = [other for other in subjects if other != pair]
    near = [other for other in others if set(other) & set(pair)]
    return dice.pick(near if dice.chance(0.7) else others)
