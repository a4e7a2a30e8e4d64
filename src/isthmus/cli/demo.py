"""`isthmus demo`: the offline first run."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.printing import clean, interval, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.core.options import RunOptions


def _print(result: Result) -> None:
    rows = [
        [name, number(row["accuracy"]), interval(row["interval"]), number(row["n"])]
        for name, row in result["answers"].items()
    ]
    print_table("Answers right, by picture", ("picture", "share", "95% interval", "questions"), rows)
    typer.echo(f"{number(result['seconds'])} seconds; report: {clean(str(result['report']))}")
    typer.echo(clean(result["verdict"]))


@verb(_print)
def demo(
    out: Annotated[Path, typer.Option(help="The run directory.")] = Path("runs/demo"),
    *,
    options: RunOptions,
) -> Result:
    """Train on the built-in world, offline, and judge whether the model looks at the picture."""
    from isthmus.run.demo import demo as run_demo

    return run_demo(out=out, options=options)
