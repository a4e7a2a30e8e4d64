"""Changes to a recipe from the command line: `stages.align.optimizer.lr=1e-4`."""

from collections.abc import Sequence
from typing import Any

from isthmus.config.yaml import Path, parse_value
from isthmus.core.errors import RecipeError

RIVALS = {"steps": "epochs", "epochs": "steps"}
"""Keys of which a stage has exactly one: setting one takes the other away."""


def apply_overrides(data: Any, overrides: Sequence[str]) -> dict[Path, str]:
    """Change `data` in place; stages are named by number or by name.

    Returns:
        For each path that was set, the override that did it.

    Raises:
        RecipeError: An override has no `=`, leads through something that has no keys, or names no stage.
    """
    origins: dict[Path, str] = {}
    for text in overrides:
        path, value = _read(text)
        place = _set(data, path, value, text)
        origins[place] = text
    for place in list(origins):
        _drop_rival(data, place, origins)
    return origins


def _read(text: str) -> tuple[list[str], Any]:
    left, equals, right = text.partition("=")
    path = left.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(f"'{text}' is no override; expected KEY=VALUE such as stages.0.optimizer.lr=1e-4")
    return path, parse_value(right)


def _set(data: Any, path: Sequence[str], value: Any, text: str) -> Path:
    node, place = data, ()
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, list):
            step: str | int = _index(node, key, ".".join(path[:depth]), text)
        elif isinstance(node, dict):
            step = key
        else:
            raise RecipeError(
                f"the override '{text}' cannot set '{key}': '{'.'.join(path[:depth])}' is {node!r}, which has no keys"
            )
        place = (*place, step)
        if last:
            node[step] = value
        else:
            if isinstance(node, dict) and node.get(step) is None:
                node[step] = {}
            node = node[step]
    return place


def _index(entries: list[Any], key: str, where: str, text: str) -> int:
    names = [entry["name"] for entry in entries if isinstance(entry, dict) and "name" in entry]
    if key in names:
        return next(
            i for i, entry in enumerate(entries) if isinstance(entry, dict) and entry.get("name") == key
        )
    if key.isdecimal() and int(key) < len(entries):
        return int(key)
    allowed = [*map(str, range(len(entries))), *map(str, names)]
    raise RecipeError(
        f"the override '{text}' names '{key}' in {where}; allowed: {', '.join(allowed) or 'nothing'}"
    )


def _drop_rival(data: Any, place: Path, origins: dict[Path, str]) -> None:
    *above, key = place
    if len(place) != 3 or place[0] != "stages" or key not in RIVALS:
        return
    rival = RIVALS[str(key)]
    if (*above, rival) not in origins:
        data["stages"][place[1]].pop(rival, None)
