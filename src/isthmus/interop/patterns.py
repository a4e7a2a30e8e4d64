"""Names of tensors put into parts by patterns, one rule a tensor."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part and by their name inside it."""

Rules = Sequence[tuple[str, str]]
"""Patterns of whole names and what becomes of them, `PART:NAME`; the first that matches is taken, `` drops it."""


class Place(NamedTuple):
    """Where a tensor goes; both empty where it is not needed."""

    part: str
    name: str


def place_of(name: str, rules: Rules) -> Place | None:
    """The place of one tensor; None where no rule knows it."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            part, _, inside = match.expand(replacement).partition(":")
            return Place(part, inside)
    return None
