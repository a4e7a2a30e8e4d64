"""Where recipes point to: the shared folder is a variable, so that a recipe's hash does not depend on the machine."""

import os
import re

from isthmus.core.errors import RecipeError

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
    return text.replace("${shared}", os.environ.get(SHARED, DEFAULT_SHARED).rstrip("/"))
