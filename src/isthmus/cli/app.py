"""The command `isthmus` and its verbs."""

from typing import Annotated

import typer

from isthmus.cli.ask import ask
from isthmus.cli.curate import curate
from isthmus.cli.demo import demo
from isthmus.cli.evaluate import evaluate
from isthmus.cli.show import show
from isthmus.cli.train import train

app = typer.Typer(
    name="isthmus",
    help="Join a vision model to a language model, train the strip between them, and see whether it looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, train, show, evaluate, ask):
    app.command()(command)
app.add_typer(curate)


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="isthmus")


def _print_version(wanted: bool) -> None:
    if wanted:
        from isthmus import __version__

        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_all_verbs(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass
