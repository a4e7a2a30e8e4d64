"""Writes docs/reference-recipe.md from the recipe schema: `.venv/bin/python docs/make_reference.py`."""

import ast
import functools
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import isthmus.config.academic
import isthmus.config.capfilt
import isthmus.config.classifier
import isthmus.config.data
import isthmus.config.dual
import isthmus.config.evaluation
import isthmus.config.instruct
import isthmus.config.joining
import isthmus.config.language
import isthmus.config.masked
import isthmus.config.med
import isthmus.config.model
import isthmus.config.qformer
import isthmus.config.recipe
import isthmus.config.resampling
import isthmus.config.stages
import isthmus.config.tiles
import isthmus.config.vision
from isthmus.config.recipe import Recipe

PAGE = Path(__file__).with_name("reference-recipe.md")
GROUPS = (
    ("The whole recipe", isthmus.config.recipe),
    ("Data", isthmus.config.data),
    ("Academic data", isthmus.config.academic),
    ("Models", isthmus.config.model),
    ("Masked image models", isthmus.config.masked),
    ("Classifiers", isthmus.config.classifier),
    ("Vision encoders", isthmus.config.vision),
    ("Dual encoders", isthmus.config.dual),
    ("Connectors and fusion", isthmus.config.joining),
    ("Connectors with a fixed number of visual tokens", isthmus.config.resampling),
    ("BLIP", isthmus.config.med),
    ("Q-Former", isthmus.config.qformer),
    ("Tiles", isthmus.config.tiles),
    ("Language models and tokenizers", isthmus.config.language),
    ("Stages", isthmus.config.stages),
    ("Stages that caption and filter", isthmus.config.capfilt),
    ("Stages that write instruction data", isthmus.config.instruct),
    ("Evaluation", isthmus.config.evaluation),
)
HEAD = """\
# Reference: every key of a recipe

Made from the schema by `docs/make_reference.py`; a test fails when it is not current. A key without a default has to be
written. Blocks are closed: an unknown key is a mistake. Numbers are numbers (`"3"` is text), and `1e-4` is a number.
"""

Schema = dict[str, Any]


def reference() -> str:
    """The whole page."""
    definitions: dict[str, Schema] = Recipe.model_json_schema()["$defs"]
    sections = [HEAD]
    for title, module in GROUPS:
        blocks = [
            block
            for name, block in inspect.getmembers(module, inspect.isclass)
            if issubclass(block, BaseModel) and block.__module__ == module.__name__ and name == block.__name__
        ]
        # What others inherit from stands in no recipe by itself.
        blocks = [block for block in blocks if block is Recipe or block.__name__ in definitions]
        blocks.sort(key=lambda block: inspect.getsourcelines(block)[1])
        # The recipe comes first in its own group, whatever its file needs before it.
        blocks.sort(key=lambda block: block is not Recipe)
        listed = [_block(block, definitions) for block in blocks]
        sections.append(f"## {title}\n\n" + "\n".join(listed))
    return "\n".join(sections)


def _block(block: type[BaseModel], definitions: dict[str, Schema]) -> str:
    schema = Recipe.model_json_schema() if block is Recipe else definitions[block.__name__]
    meanings = _meanings(block)
    rows = []
    for name, entry in schema["properties"].items():
        needed = name in schema.get("required", ()) or (name == "kind" and block.__name__ in _told_apart())
        default = "required" if needed else _default(entry)
        meaning = "Which block this is." if name == "kind" else meanings[name]
        rows.append(f"| `{name}` | {_kind(entry)} | {default} | {meaning} |")
    said = inspect.getdoc(block) or ""
    table = "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])
    return f"### {block.__name__}\n\n{said}\n\n{table}\n"


@functools.cache
def _told_apart() -> set[str]:
    """The blocks that stand beside others, so that `kind` has to say which one is meant."""
    text = json.dumps(Recipe.model_json_schema())
    mappings = re.findall(r'"mapping": (\{.*?\})', text)
    return {name.rpartition("/")[2] for found in mappings for name in json.loads(found).values()}


def _meanings(block: type[BaseModel]) -> dict[str, str]:
    """The string below each field of a class, or of what it inherits from."""
    meanings: dict[str, str] = {}
    for ancestor in reversed(block.__mro__):
        if ancestor.__module__.startswith("isthmus."):
            meanings |= _own_meanings(ancestor)
    return meanings


def _own_meanings(block: type) -> dict[str, str]:
    body = ast.parse(inspect.getsource(block)).body[0]
    assert isinstance(body, ast.ClassDef)
    meanings = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    meanings[field.target.id] = " ".join(text.split()).replace("|", "\\|")
    return meanings


def _kind(entry: Schema) -> str:
    """What may stand at a key, in words."""
    match entry:
        case {"$ref": name}:
            return _link(name)
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{str(value).lower() if isinstance(value, bool) else value}`"
        case {"anyOf": options} | {"oneOf": options}:
            return " or ".join(_kind(option) for option in options)
        case {"type": "array", "prefixItems": items}:
            return f"{len(items)} of: {_kind(items[0])}"
        case {"type": "array", "items": item}:
            return f"list of {_kind(item)}"
        case {"type": "object", "additionalProperties": dict(value)}:
            names = _kind(entry["propertyNames"]) if "propertyNames" in entry else "names"
            return f"{names}, each with {_kind(value)}"
        case {"type": kind}:
            words = {
                "integer": "whole number",
                "number": "number",
                "string": "text",
                "boolean": "true or false",
                "null": "null",
                "object": "keys",
            }
            return " ".join([words[kind], *_bounds(entry)])
    return "anything"


def _link(reference_name: str) -> str:
    name = reference_name.rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _bounds(entry: Schema) -> list[str]:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "from",
        "exclusiveMaximum": "below",
        "maximum": "to",
        "pattern": "of the form",
    }
    return [
        f"{word} {f'`{entry[key]}`' if key == 'pattern' else f'{entry[key]:g}'}"
        for key, word in words.items()
        if key in entry
    ]


def _default(entry: Schema) -> str:
    match entry.get("default"):
        case None:
            return "null"
        case bool(value):
            return f"`{str(value).lower()}`"
        case dict(values):
            return "its defaults" if values else "`{}`"
        case list(values):
            return f"`[{', '.join(map(str, values))}]`"
        case value:
            return f"`{value}`"


def main() -> int:
    """Write the page."""
    PAGE.write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
