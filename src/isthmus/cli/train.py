"""`isthmus train`: run the stages of a recipe."""

import os
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.printing import clean, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.core.options import RunOptions


def _print(result: Result) -> None:
    columns = {
        "name": "stage",
        "steps": "steps",
        "loss": "loss (mean of the last 50)",
        "seconds": "seconds",
        "trainable": "trainable parameters",
    }
    tried = result["run"] is None
    if tried:
        del columns["loss"], columns["seconds"]
    rows = [[number(stage.get(key)) for key in columns] for stage in result["stages"]]
    print_table("Stages", tuple(columns.values()), rows)
    typer.echo("nothing was trained or written" if tried else f"run: {clean(str(result['run']))}")


@verb(_print)
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file or a shipped name such as demo.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes: stages.0.optimizer.lr=1e-4")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory; default runs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and check everything; train nothing.")
    ] = False,
    *,
    options: RunOptions,
) -> Result:
    """Run the stages of a recipe."""
    from isthmus.config.load import load_recipe

    changes = list(overrides or ())
    if options.seed is not None:
        changes.append(f"seed={options.seed}")
    checked = load_recipe(recipe, changes)
    directory = Path("runs") / checked.name if out is None else out

    from isthmus.run.train import train as run_train

    result = run_train(checked, out=directory, resume=resume, dry_run=dry_run, options=options)
    if os.environ.get("RANK", "0") != "0":
        # Of the processes that torchrun started, the first speaks for all.
        raise typer.Exit
    return result
