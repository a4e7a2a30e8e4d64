"""Where recipes point to: the shared folder is a variable, so that a recipe's hash does not depend on the machine."""

import os
import re
from pathlib import Path

from isthmus.core.errors import DataError, RecipeError

SHARED = "ISTHMUS_SHARED"
"""The environment variable that names the shared folder."""

DEFAULT_SHARED = "../shared"


def expand(text: str) -> str:
    """The path with `${shared}` replaced by this machine's shared folder; called where a path is used, not before.

    Raises:
        RecipeError: Another variable is named.
    """
    unknown = [name for name in re.findall(r"\$\{([^}]*)\}", text) if name != "shared"]
    if unknown:
        raise RecipeError(
            f"the path '{text}' uses the variable '${{{unknown[0]}}}'; only ${{shared}} exists, "
            f"which is the environment variable {SHARED} (default {DEFAULT_SHARED})"
        )
    return text.replace("${shared}", _shared())


def data_path(text: str) -> str:
    """The path of data, as `expand` gives it.

    Raises:
        RecipeError: Another variable is named.
        DataError: The path lies in the shared folder, which is not there.
    """
    expanded = expand(text)
    if expanded != text and not Path(_shared()).is_dir():
        raise DataError(
            f"'{text}' is not there: {SHARED}, which says what ${{shared}} stands for, is "
            f"{os.environ.get(SHARED) or f'not set (default {DEFAULT_SHARED})'}, and that is no folder; "
            "set it to the folder that holds data/ and models/"
        )
    return expanded


def _shared() -> str:
    return os.environ.get(SHARED, DEFAULT_SHARED).rstrip("/")
