"""Sizes of pictures and grids; height always comes before width, except where a person types `640x480`."""

import re
from typing import NamedTuple

from isthmus.core.errors import UsageError


class Size(NamedTuple):
    """Height and width, in pixels or in patches."""

    height: int
    width: int

    @property
    def area(self) -> int:
        """Height times width."""
        return self.height * self.width


def parse_size(text: str) -> Size:
    """Read `WIDTHxHEIGHT` as people write it, for example `640x480`, or one number for a square.

    Raises:
        UsageError: The text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if match is None or int(match[1]) == 0 or match[2] == "0":
        raise UsageError(
            f"'{text}' is not a picture size; expected WIDTHxHEIGHT such as 640x480, or one number for a square"
        )
    width = int(match[1])
    return Size(height=int(match[2]) if match[2] else width, width=width)
