"""`isthmus ask`: one picture, one answer."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.printing import clean
from isthmus.cli.verbs import Result, verb
from isthmus.core.options import RunOptions


def _print(result: Result) -> None:
    typer.echo(clean(result["answer"]))


@verb(_print)
def ask(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str | None, typer.Argument(help="A question; without one: a caption.")] = None,
    *,
    options: RunOptions,
) -> Result:
    """Answer a question about a picture, or caption it."""
    from isthmus.run.ask import ask as run_ask

    return run_ask(run, image, question, options)
