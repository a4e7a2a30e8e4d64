"""Isthmus joins a vision model to a language model with a small trained strip, and shows whether the result looks.

The names below are imported when they are first used, so that `import isthmus` and checking a recipe stay fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.build.model import build_model
    from isthmus.config.load import load_recipe
    from isthmus.run.load import load

__version__ = "0.1.0"
__all__ = ["__version__", "build_model", "load", "load_recipe"]

_HOMES = {
    "load_recipe": "isthmus.config.load",
    "build_model": "isthmus.build.model",
    "load": "isthmus.run.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"isthmus has no '{name}'; it has {', '.join(__all__)}")
    return vars(importlib.import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
