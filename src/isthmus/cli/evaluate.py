"""`isthmus evaluate`: metrics of a run with intervals, and the controls that show whether it looks."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isthmus.cli.printing import clean, interval, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.core.options import RunOptions


def _print(result: Result) -> None:
    verdict = result["controls"].get("verdict")
    for title in ("metrics", "controls"):
        rows = _rows(_named(result[title]), "")
        if rows:
            print_table(title.capitalize(), ("name", "value", "95% interval"), rows)
    whole = f" of {number(result['of'])}" if "of" in result else ""
    typer.echo(f"rows: {number(result['n'])}{whole}")
    if equal := result.get("equal_captions", 0):
        typer.echo(f"{equal:.1%} of the captions are also another picture's; a tie counts as a miss")
    if verdict is not None:
        typer.echo(clean(verdict))


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """Without what the last line says in words; the lead is named by the control that it is over."""
    best = values.get("best_control")
    lead = f"real minus {best}"
    return {
        lead if name in ("margin", "real_minus_best") else name: value
        for name, value in values.items()
        if name not in ("verdict", "conclusion", "best_control")
    }


def _rows(values: dict[str, Any], above: str) -> list[list[str]]:
    """One row a number; the interval of a number stands beside it, whatever its name is."""
    rows: list[list[str]] = []
    for name, value in values.items():
        label = f"{above} {name}".strip()
        if isinstance(value, dict):
            measured = [key for key in value if key not in ("interval", "n")]
            if {"value", "low", "high"} <= value.keys():
                rows.append([label, number(value["value"]), interval([value["low"], value["high"]])])
            elif "interval" in value and len(measured) == 1:
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
    images: Annotated[
        Path | None, typer.Option(help="Where the pictures of a LLaVA JSON file lie; default: beside it.")
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
        run,
        data=data,
        images=images,
        split=split,
        limit=limit,
        changes=tuple(overrides or ()),
        options=options,
    )
