"""YAML 1.2 in and out, with bounds: `on` is a word, `1e-4` a number, a repeated key an error, no alias bombs."""

import io
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from isthmus.core.errors import RecipeError

MAX_BYTES = 1_000_000
"""The largest file that is read; the longest shipped recipe is a hundredth of it."""

MAX_NODES = 20_000
"""The most keys, values and entries after all aliases are followed."""

MAX_DEPTH = 40
"""The deepest nesting; a recipe needs 6."""

Path = tuple[str | int, ...]
"""Keys and indices from the top of a file."""


def parse(text: str, origin: str) -> tuple[Any, dict[Path, int]]:
    """The plain data of a YAML text and the line of each key and entry, counted from 1.

    Raises:
        RecipeError: It is too large, no YAML, repeats a key, or unfolds to too much.
    """
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(f"{origin} has {len(text.encode())} bytes; a recipe has at most {MAX_BYTES}")
    try:
        node = _reader().compose(text)
        if node is None:
            return None, {}
        lines = dict(_lines(_bounded(node, origin), (), node.start_mark.line + 1))
        return _reader().load(text), lines
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = str(error.problem).split(" with value")[0]
        raise RecipeError(f"{origin}, line {line}: {problem}; each key stands once") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise RecipeError(f"{origin}, line {line}: this is not YAML 1.2: {error.problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise RecipeError(f"{origin} is not YAML 1.2: {reason}") from error


def parse_value(text: str) -> Any:
    """One value as YAML reads it: `1e-4` a number, `null` nothing, `[a, b]` a list.

    Raises:
        RecipeError: It is no YAML.
    """
    return parse(text, f"the value '{text}'")[0]


def dump(data: Any) -> str:
    """Plain data as YAML with keys in the order given."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    writer.width = 110
    stream = io.StringIO()
    writer.dump(data, stream)
    return stream.getvalue()


def _reader() -> YAML:
    return YAML(typ="safe", pure=True)


def _bounded(node: Node, origin: str) -> Node:
    """The node itself, if following its aliases ends soon."""
    sizes: dict[int, int] = {}

    def size(current: Node, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise RecipeError(
                f"{origin} is nested deeper than {MAX_DEPTH} levels, or an alias contains itself; "
                "write the values out"
            )
        if id(current) not in sizes:
            sizes[id(current)] = 1 + sum(size(child, depth + 1) for _, child in _children(current))
        if sizes[id(current)] > MAX_NODES:
            raise RecipeError(f"{origin} unfolds to more than {MAX_NODES} values; write fewer aliases")
        return sizes[id(current)]

    size(node, 0)
    return node


def _children(node: Node) -> Iterator[tuple[str | int, Node]]:
    match node:
        case MappingNode():
            for key, value in node.value:
                yield (key.value if isinstance(key, ScalarNode) else str(key.tag)), value
        case SequenceNode():
            yield from enumerate(node.value)


def _lines(node: Node, path: Path, line: int) -> Iterator[tuple[Path, int]]:
    yield path, line
    keys = {key.value: key for key, _ in node.value} if isinstance(node, MappingNode) else {}
    for name, child in _children(node):
        start = keys.get(name, child)
        yield from _lines(child, (*path, name), start.start_mark.line + 1)
