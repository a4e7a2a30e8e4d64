"""`isthmus curate`: data that models or grammars make of data."""

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.printing import clean, number, print_table
from isthmus.cli.verbs import Result, verb
from isthmus.config.curating import FilterOptions, ModelOptions
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


def _print_filtered(result: Result) -> None:
    rows = [
        [origin, number(one["written"]), number(one["kept"]), number(one["written"] - one["kept"])]
        for origin, one in result["by_origin"].items()
    ]
    print_table("Captions", ("from", "written", "kept", "dropped"), rows)
    if result["unusable_pictures"]:
        typer.echo(f"{number(result['unusable_pictures'])} pictures cannot be used, each with its reason")
    if not result["whole"]:
        typer.echo("other shares are not done yet; the last process to end writes the table and the report")
        return
    typer.echo(f"{number(result['pictures'])} pictures with captions: {clean(result['pairs'])}")
    typer.echo(f"every caption with its score: {clean(result['decisions'])}")
    typer.echo(f"report: {clean(result['report'])}")


@curate.command()
@verb(_print_filtered)
def capfilt(
    data: Annotated[str, typer.Argument(help="Tar shards (a path or pattern), or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="The folder for pairs, decisions and report.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    *,
    by: ModelOptions,
    rule: FilterOptions,
    options: RunOptions,
) -> Result:
    """Caption pictures, filter their captions and the new ones, write what is kept; the data is never changed."""
    from isthmus.run.curate_capfilt import capfilt as run_capfilt

    return run_capfilt(data, out=out, resume=resume, by=by, rule=rule, options=options)
