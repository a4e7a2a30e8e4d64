"""What verbs print: one JSON object for machines; tables for people, plain columns where there is no terminal."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

KEPT = "\n\t"
"""The control characters that stay as they are."""


def clean(text: str) -> str:
    """The text with control and direction characters made visible, so that a model cannot steer the terminal."""
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def print_json(result: dict[str, Any]) -> None:
    """Write one JSON object, in ASCII, to stdout."""
    sys.stdout.write(json.dumps(result, allow_nan=False, default=_plain) + "\n")
    sys.stdout.flush()


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under headers; all columns but the first are aligned to the right."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_drawn(title, headers, cells)
        return
    typer.echo(title)
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    for row in [list(headers), *cells]:
        first, *rest = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join([first, *rest]).rstrip())


def number(value: Any) -> str:
    """A number for people: thousands apart, three digits after the point; anything else as text."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:,.3f}"
        case _:
            return str(value)


def interval(value: Any) -> str:
    """A pair of numbers as `0.901 to 0.953`; nothing where there is none."""
    return f"{number(value[0])} to {number(value[1])}" if value else ""


def _is_harmless(character: str) -> bool:
    return character in KEPT or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a JSON result")


def _print_drawn(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if column else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
