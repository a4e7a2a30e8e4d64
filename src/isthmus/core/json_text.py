"""JSON that others wrote."""

import json
import re
from typing import Any

_HALVES = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""How a half of a character is spelt, alone or as one of a pair."""


def loads(text: str) -> Any:
    r"""What a text says.

    Raises:
        ValueError: It is no JSON, or it spells half of a character (`\ud83d` alone), which no file and no tokenizer
            can hold (RFC 7493, section 2.1).
        RecursionError: It is nested too deeply.
    """
    found = json.loads(text)
    if _HALVES.search(text):
        json.dumps(found, ensure_ascii=False).encode()  # its error is a ValueError
    return found
