"""Text files that hold the rows of a data set, read as a whole."""

from pathlib import Path
from typing import Any

from isthmus.core.errors import DataError
from isthmus.core.json_text import loads

MAX_BYTES = 2 * 2**30
"""The largest table that is read."""


def read_text(file: Path) -> str:
    """The text of a file, without a mark of the byte order in front.

    Raises:
        DataError: The file is missing, larger than 2 GiB, or no UTF-8.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{file} is larger than {MAX_BYTES:,} bytes; split it, or use tar shards for a set this large"
            )
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text (byte {error.start:,}); save it as UTF-8") from error


def parse_json(text: str, where: str, *, expected: str = "one object a line") -> Any:
    """What a text says as JSON.

    Args:
        text: The text.
        where: What messages call it: a file, or a line of one.
        expected: What should stand there.

    Raises:
        DataError: It is no JSON, or nested too deeply.
    """
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no valid JSON; expected {expected}") from error
