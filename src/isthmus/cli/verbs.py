"""What all verbs share: the common options, the offline switch, errors, and one way to print the result."""

import contextlib
import dataclasses
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer

from isthmus.cli.failures import failures
from isthmus.cli.printing import print_json
from isthmus.core.options import Precision, RunOptions

Result = dict[str, Any]
"""The JSON object of a verb."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""What keeps Hugging Face's libraries off the network; read when they are imported."""


def common_options(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Number format of matrix products.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Replace the recipe's seed.", min=0)] = None,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Fetch what is not here.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show where it came from.")] = False,
) -> RunOptions:
    """The options every verb has; `debug`, whether tracebacks are shown, is for `failures` alone."""
    terminal = (sys.stderr if json else sys.stdout).isatty()
    return RunOptions(
        device=device,
        precision=precision,
        seed=seed,
        allow_network=allow_network,
        json=json,
        terminal=terminal,
    )


def verb(print_result: Callable[[Result], None]) -> Callable[[Callable[..., Result]], Callable[..., None]]:
    """Make a command of a function with an `options: RunOptions` parameter.

    The command also has the common options, ends as the design's exit codes say, and prints the function's result:
    as one JSON object with `--json` (what else is printed meanwhile goes to stderr), else by `print_result`.
    A parameter whose type is a dataclass stands for one option a field, explained by the field's annotation.
    """
    common = inspect.signature(common_options, eval_str=True).parameters

    def make(function: Callable[..., Result]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        groups = {
            name: inspect.signature(parameter.annotation, eval_str=True).parameters
            for name, parameter in own.items()
            if name != "options" and dataclasses.is_dataclass(parameter.annotation)
        }
        listed = [own[name] for name in own if name != "options" and name not in groups]
        listed += [_as_option(field) for fields in groups.values() for field in fields.values()]
        assert not {parameter.name for parameter in listed} & set(common)

        def command(**values: Any) -> None:
            given = {name: values.pop(name) for name in common}
            with failures(debug=given["debug"]):
                options = common_options(**given)
                for name, fields in groups.items():
                    values[name] = own[name].annotation(**{field: values.pop(field) for field in fields})
                if not options.allow_network:
                    os.environ.update(dict.fromkeys(OFFLINE, "1"))
                # Where it is installed, it says with each command that a kernel on the hub was not fetched.
                logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
                with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
                    result = function(**values, options=options)
                if options.json:
                    print_json(result)
                else:
                    print_result(result)

        everything = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*listed, *common.values())]
        command.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return command

    return make


def _as_option(field: inspect.Parameter) -> inspect.Parameter:
    """A field `Annotated[type, "what it means"]` as an option."""
    kind, meaning = get_args(field.annotation)
    return field.replace(annotation=Annotated[kind, typer.Option(help=meaning)])
