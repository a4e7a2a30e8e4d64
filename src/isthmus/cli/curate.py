"""`isthmus curate`: data that models or grammars make of data."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.printing import clean, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.config.instructions import FactOptions, PaceOptions, WriterOptions
from isthmus.core.options import RunOptions

curate = typer.Typer(
    name="curate", help="Make data of data, every dropped row with its reason.", no_args_is_help=True
)


def _print(result: Result) -> None:
    print_table(
        "Conversations kept", ("kind", "rows"), [[kind, number(n)] for kind, n in result["kinds"].items()]
    )
    if result["reasons"]:
        print_table(
            "Dropped", ("reason", "rows"), [[reason, number(n)] for reason, n in result["reasons"].items()]
        )
    tokens = result["tokens"]
    if tokens["in"] or tokens["out"]:
        read, written = number(tokens["in"]), number(tokens["out"])
        typer.echo(f"{read} tokens read, {written} written; cost {result['cost']:.4f}")
    typer.echo(f"{number(result['written'])} replies, {number(result['kept'])} kept: {clean(result['file'])}")
    if result["dropped"]:
        typer.echo(f"{number(result['dropped'])} dropped, each with its reason: {clean(result['rejects'])}")


@curate.command()
@verb(_print)
def instruct(
    facts: Annotated[
        str, typer.Argument(help="scenes, a .jsonl file of captions and boxes, or COCO's captions file.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for conversations, rejects and journal.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    *,
    about: FactOptions,
    by: WriterOptions,
    pace: PaceOptions,
    options: RunOptions,
) -> Result:
    """Write LLaVA's instruction data from captions and boxes; no picture is ever sent."""
    from isthmus.run.curate_instruct import instruct as run_instruct

    return run_instruct(facts, out=out, resume=resume, about=about, by=by, pace=pace, options=options)
