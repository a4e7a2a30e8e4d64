"""Recipes from files and shipped names, and back: overrides, the resolved text, and the hash."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from isthmus.config import yaml
from isthmus.config.explain import Origin, explain, nearest
from isthmus.config.overrides import apply_overrides
from isthmus.config.recipe import Recipe
from isthmus.core.errors import RecipeError, UsageError

RECIPE_FILE = "recipe.yaml"
"""What the recipe of a run is called in its directory."""
SHIPPED = Path(__file__).parent.parent / "recipes"
"""The folder of the recipes that come with the package."""


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        source: A YAML file, or the name of a shipped recipe such as `tiny/llava`.
        overrides: Changes such as `stages.align.optimizer.lr=1e-4`; values are read as YAML.

    Raises:
        RecipeError: There is no such recipe, or it has mistakes; the message lists every one.
    """
    file, shown = find_recipe(source)
    return parse_recipe(_text_of(file, shown), shown, overrides)


def parse_recipe(text: str, origin: str, overrides: Sequence[str] = ()) -> Recipe:
    """Check the text of a recipe; `origin` names it in messages.

    Raises:
        RecipeError: It has mistakes; the message lists every one.
    """
    data, lines = yaml.parse(text, origin)
    if not isinstance(data, dict):
        raise RecipeError(f"{origin} is no recipe: expected keys such as name, model and stages at the top")
    changed = apply_overrides(data, overrides)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(explain(error, Origin(file=origin, lines=lines, overrides=changed))) from error


def recipe_of(target: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a path, a shipped name or a run directory stands for.

    Raises:
        RecipeError: There is no such recipe, or it has mistakes.
        UsageError: A run is to be changed.
    """
    inside_run = Path(target) / RECIPE_FILE
    if not inside_run.is_file():
        return load_recipe(target, overrides)
    if overrides:
        raise UsageError(
            f"'{target}' is a run, which is as it was trained; found the change '{overrides[0]}', which only a recipe "
            f"takes: name the recipe, or {inside_run}"
        )
    return load_recipe(str(inside_run))


def find_recipe(source: str | Path) -> tuple[Path, str]:
    """The file of a recipe and how to call it in messages.

    Raises:
        RecipeError: Neither a file nor a shipped recipe has this name; the nearest names are listed.
    """
    text = str(source)
    path = Path(source)
    shipped = SHIPPED / f"{text}.yaml"
    if path.suffix in (".yaml", ".yml") or isinstance(source, Path):
        if path.is_file():
            return path, text
    elif text in shipped_names():
        return shipped, f"recipe {text}"
    if path.exists():
        found = "a folder" if path.is_dir() else "a file of another kind"
        raise RecipeError(f"'{text}' is {found}; expected a recipe whose name ends with .yaml or .yml")
    names = shipped_names()
    near = nearest(path.stem if path.suffix else text, names)
    hint = f" (did you mean '{near}'?)" if near is not None else ""
    folder, _, _ = text.rpartition("/")
    beside = [name for name in names if name.rpartition("/")[0] == folder] if folder else []
    known = ", ".join(beside or [name for name in names if "/" not in name])
    more = "" if beside else ", and more under tiny/ and flickr8k/ (README.md lists all)"
    raise RecipeError(
        f"there is no recipe '{text}'{hint}: no such file or folder, and the shipped recipes are {known}{more}"
    )


def shipped_names() -> tuple[str, ...]:
    """The names of the recipes that come with the package, sorted."""
    files = SHIPPED.rglob("*.yaml")
    return tuple(sorted(file.relative_to(SHIPPED).with_suffix("").as_posix() for file in files))


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out; loading it gives an equal recipe."""
    return yaml.dump(recipe.model_dump(mode="json"))


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of the resolved recipe as canonical JSON; the same on every machine."""
    return _hash(recipe.model_dump(mode="json"))


def written_hash(file: Path) -> str:
    """The `recipe_hash` that a resolved recipe had when it was written; keys that exist since then do not change it.

    Raises:
        RecipeError: The file cannot be read or is no YAML.
    """
    return _hash(yaml.parse(_text_of(file, str(file)), str(file))[0])


def _text_of(file: Path, shown: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"the recipe {shown} cannot be read (byte {error.start} is no UTF-8 text); save it as UTF-8"
        ) from error
    except OSError as error:
        raise RecipeError(
            f"the recipe {shown} cannot be read ({error.strerror}); check the file and its permissions"
        ) from error


def _hash(plain: Any) -> str:
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
