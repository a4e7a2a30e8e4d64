"""What is wrong with a recipe, in words: path, what was found, what is allowed, the nearest match, file and line."""

import difflib
import functools
import json
import operator
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from isthmus.config.base import Mistake, one_of
from isthmus.config.recipe import Recipe

TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""What is allowed where pydantic reports that the type is wrong."""

BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
"""What is allowed where pydantic reports a number out of bounds, and where the bound stands."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the values of a recipe were written.

    Attributes:
        file: The path or shipped name, as shown to the reader.
        lines: The line of each key and entry.
        overrides: The override that set a path.
    """

    file: str
    lines: Mapping[tuple[str | int, ...], int]
    overrides: Mapping[tuple[str | int, ...], str]

    def of(self, path: tuple[str | int, ...]) -> str:
        """`line 12` or `override KEY=VALUE`: the nearest written place at or above the path."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return f"override {self.overrides[path[:length]]}"
            if path[:length] in self.lines:
                return f"line {self.lines[path[:length]]}"
        return "line 1"


def explain(error: ValidationError, origin: Origin) -> str:
    """One message that lists every mistake of a recipe."""
    mistakes = list(mistakes_of(error))
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [f"{origin.file} has {count}:"]
    for mistake in mistakes:
        path = ".".join(map(str, mistake.path)) or "the recipe"
        quoted = re.search(r"'([^']*)'", mistake.found)
        near = nearest(quoted[1], mistake.choices) if quoted is not None else None
        hint = f"; did you mean '{near}'?" if near is not None else ""
        place = origin.of(mistake.path)
        lines.append(f"  {place}: {path}: found {mistake.found}, allowed: {mistake.allowed}{hint}")
    return "\n".join(lines)


def nearest(word: str, choices: Sequence[str]) -> str | None:
    """The choice a person most likely meant, or None where nothing is near."""
    folded = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    return folded[matches[0]] if matches else None


def mistakes_of(error: ValidationError) -> Iterator[Mistake]:
    """The mistakes behind pydantic's errors, with paths from the top of the recipe."""
    for detail in error.errors(include_url=False):
        path, annotation = _walk(detail["loc"])
        own: Sequence[Mistake] = detail.get("ctx", {}).get("mistakes", ())
        if detail["type"] == "mistakes":
            for mistake in own:
                found, allowed = mistake.found, mistake.allowed
                yield Mistake(path=path + mistake.path, found=found, allowed=allowed, choices=mistake.choices)
        elif not _is_echo(detail):
            yield _mistake(detail, path, annotation)


def _is_echo(detail: ErrorDetails) -> bool:
    """Pydantic also calls a list too short when one of its entries has a mistake, which is listed already."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _mistake(detail: ErrorDetails, path: tuple[str | int, ...], annotation: Any) -> Mistake:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    choices: tuple[str, ...] = ()
    found = shown(value)
    match kind:
        case "missing":
            found, allowed = "nothing", f"{_wanted(annotation)}, it has no default"
        case "extra_forbidden":
            found, choices = f"the unknown key '{path[-1]}'", _keys(_walk(detail["loc"][:-1])[1])
            allowed = one_of(choices)
            return Mistake(path=path, found=found, allowed=allowed, choices=choices)
        case "union_tag_invalid":
            choices = _tags(annotation)
            return Mistake(
                path=(*path, "kind"), found=shown(context["tag"]), allowed=one_of(choices), choices=choices
            )
        case "union_tag_not_found":
            choices = _tags(annotation)
            return Mistake(path=(*path, "kind"), found="nothing", allowed=one_of(choices), choices=choices)
        case "literal_error":
            choices = tuple(map(str, _words(annotation)))
            allowed = one_of(choices) if choices else str(context["expected"])
        case "string_pattern_mismatch":
            allowed = f"text of the form {context['pattern']}"
        case "too_short" | "string_too_short":
            allowed = f"at least {context['min_length']} of them"
        case "too_long" | "string_too_long":
            allowed = f"at most {context['max_length']} of them"
        case _ if kind in BOUNDS:
            words, key = BOUNDS[kind]
            allowed = f"a number {words} {context[key]:g}"
        case _:
            found = f"the text {found}" if isinstance(value, str) else found
            allowed = TYPES[kind] if kind in TYPES else detail["msg"].lower()
    return Mistake(path=path, found=found, allowed=allowed, choices=choices)


def shown(value: Any) -> str:
    """A value as it would stand in YAML, cut after 60 characters."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif _is_union(annotation) and type(None) in get_args(annotation):
            rest = [member for member in get_args(annotation) if member is not type(None)]
            annotation = functools.reduce(operator.or_, rest)
        else:
            return annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _is_block(annotation: Any) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _walk(location: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], Any]:
    """The path in the file and the type there; pydantic's location also holds the kinds of unions on the way."""
    annotation: Any = Recipe
    path: list[str | int] = []
    for element in location:
        annotation = _bare(annotation)
        if _is_union(annotation):
            annotation = next((m for m in get_args(annotation) if element in _tags(m)), None)
            continue
        if element == "[key]":
            continue
        path.append(element)
        annotation = _below(annotation, element)
    return tuple(path), _bare(annotation)


def _below(annotation: Any, element: str | int) -> Any:
    if _is_block(annotation):
        field = annotation.model_fields.get(str(element))
        return None if field is None else field.annotation
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return key if get_origin(key) is Literal and element not in get_args(key) else value
    return None


def _tags(annotation: Any) -> tuple[str, ...]:
    if _is_union(annotation):
        return tuple(tag for member in get_args(annotation) for tag in _tags(member))
    return (
        tuple(map(str, get_args(annotation.model_fields["kind"].annotation))) if _is_block(annotation) else ()
    )


def _keys(annotation: Any) -> tuple[str, ...]:
    return tuple(annotation.model_fields) if _is_block(annotation) else ()


def _words(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _wanted(annotation: Any) -> str:
    if tags := _tags(annotation):
        return f"keys with kind: {' or '.join(tags)}"
    if _is_block(annotation):
        return f"keys {', '.join(annotation.model_fields)}"
    if words := _words(annotation):
        return one_of(tuple(map(str, words)))
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    origin = get_origin(annotation)
    return plain.get(annotation, "a list" if origin is tuple else "keys with values")
