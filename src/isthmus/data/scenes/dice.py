"""Chance as a pure function of a name: equal parts give equal draws in every process and on every machine."""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar, final

T = TypeVar("T")


@final
class Dice:
    """Draws that depend on nothing but the parts they are named by.

    Only `random.Random.random` is drawn from, whose sequence for a seed Python promises to keep; picking and
    shuffling are built on it here, because theirs may change between versions.

    Args:
        parts: What the draws are for, for example `("scene", seed, split, index)`.
    """

    def __init__(self, *parts: str | int) -> None:
        name = "\x1f".join(str(part) for part in parts).encode()
        self._random = random.Random(int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big"))

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._random.random()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, each as likely as the others."""
        return options[int(self._random.random() * len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """Return one of the (option, weight) options, as often as its weight says."""
        left = self._random.random() * sum(weight for _, weight in options)
        for option, weight in options:
            left -= weight
            if left < 0:
                return option
        return options[-1][0]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in a drawn order (Fisher and Yates)."""
        order = list(options)
        for last in range(len(order) - 1, 0, -1):
            other = int(self._random.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
        return order

    def key(self) -> int:
        """Return a whole number below 2**48 that other dice can be named by."""
        return int(self._random.random() * 2**48)
