"""Texts about things that are never drawn, so that reading means looking a word up and not knowing what goes with what.

Training names two thirds of the pairs of colour and shape. A language model that reads of nothing else learns which
shapes a red thing may have before it learns to look, and answers by that about pairs it has never read. Where half of
the words are others, such knowledge is worth little.
"""

from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.vocabulary import COLOURS, READ_COLOURS, READ_SHAPES, SHAPES


def exchange(key: int, share: float) -> dict[str, str]:
    """Return words and those that replace them in all texts of one scene; no two become the same.

    `share` of the colours, and of the shapes, is exchanged.
    """
    dice = Dice("exchange", key)
    exchanged: dict[str, str] = {}
    for old, new in zip(COLOURS, dice.shuffled(READ_COLOURS), strict=True):
        if dice.chance(share):
            exchanged[old] = new
    for old, new in zip(SHAPES, dice.shuffled(tuple(READ_SHAPES)), strict=True):
        if dice.chance(share):
            exchanged |= {old: new, SHAPES[old]: READ_SHAPES[new]}
    return exchanged


def retold(text: str, exchanged: dict[str, str]) -> str:
    """Return the text with words exchanged and `a` or `an` as the next word asks."""
    words = [exchanged.get(word, word) for word in text.split()]
    for at, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            words[at] = "an" if words[at + 1][0] in "aeiou" else "a"
    return " ".join(words)
