"""Texts about things that are never drawn, so that reading means looking a word up and not knowing what goes with what.

Training names two thirds of the pairs of colour and shape. A language model that reads of nothing else learns which
shapes a red thing may have before it learns to look, and answers by that about pairs it has never read. Among many more
words such knowledge is worth little.
"""

import re

from isthmus.data.scenes.captions import listed
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.vocabulary import COLOURS, READ_COLOURS, READ_SHAPES, SHAPES

SHARE = 0.75
"""Of the colours, and of the shapes, of a scene that are exchanged for words of which there are no pictures."""


def exchange(key: int) -> dict[str, str]:
    """Return words and those that replace them in all texts of one scene; no two become the same."""
    dice = Dice("exchange", key)
    exchanged: dict[str, str] = {}
    for old, new in zip(COLOURS, dice.shuffled(READ_COLOURS), strict=False):
        if dice.chance(SHARE):
            exchanged[old] = new
    for old, new in zip(SHAPES, dice.shuffled(tuple(READ_SHAPES)), strict=False):
        if dice.chance(SHARE):
            exchanged |= {old: new, SHAPES[old]: READ_SHAPES[new]}
    return exchanged


def retold(text: str, exchanged: dict[str, str]) -> str:
    """Return the text with words exchanged and `a` or `an` as the next word asks."""
    words = [exchanged.get(word, word) for word in text.split()]
    for at, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            words[at] = "an" if words[at + 1][0] in "aeiou" else "a"
    return " ".join(words)


def reordered(caption: str, dice: Dice) -> str:
    """Return a caption that lists phrases with the same phrases in a drawn order."""
    phrases = re.split(" , | and ", caption.removesuffix(" ."))
    return f"{listed(dice.shuffled(phrases))} ."
