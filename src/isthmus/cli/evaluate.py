"""`isthmus evaluate`: metrics of a run with intervals, and the controls that show whether it looks."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isthmus.cli.printing import interval, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.core.options import RunOptions


def _print(result: Result) -> None:
    for title in ("metrics", "controls"):
        rows = list(_rows(result[title], ""))
        if rows:
            print_table(title.capitalize(), ("name", "value", "95% interval"), rows)
    typer.echo(f"rows: {number(result['n'])}")
    if equal := result.get("equal_captions", 0):
        typer.echo(f"{equal:.1%} of the captions are also another picture's; a tie counts as a miss")


def _rows(values: dict[str, Any], above: str) -> list[list[str]]:
    """One row a number; the interval of a number stands beside it, whatever its name is."""
    rows: list[list[str]] = []
    for name, value in values.items():
        label = f"{above} {name}".strip()
        if isinstance(value, dict):
            measured = [key for key in value if key not in ("interval", "n")]
            if "interval" in value and len(measured) == 1:
                rows.append([label, number(value[measured[0]]), interval(value["interval"])])
            else:
                rows += _rows(value, label)
        elif name != "n":
            rows.append([label, interval(value) if isinstance(value, list) else number(value), ""])
    return rows


@verb(_print)
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes below evaluation: evaluation.decoding.beams=8"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A source of the recipe, or a path; default: its own.")
    ] = None,
    split: Annotated[
        Literal["val", "test"], typer.Option(help="Which of the recipe's two sources.")
    ] = "test",
    limit: Annotated[int | None, typer.Option(help="Most samples.", min=1)] = None,
    *,
    options: RunOptions,
) -> Result:
    """Measure a run with the right pictures, blank ones, shuffled ones and the most similar wrong ones."""
    from isthmus.run.evaluate import evaluate as run_evaluate

    return run_evaluate(
        run, data=data, split=split, limit=limit, changes=tuple(overrides or ()), options=options
    )
