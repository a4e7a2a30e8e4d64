"""How a verb ends when something goes wrong: one sentence on stderr and the exit code of the cause."""

import contextlib
import errno
import sys
import traceback
from collections.abc import Iterator

import typer

from isthmus.cli.printing import clean
from isthmus.core.errors import IsthmusError, MachineError, lacks_memory

_REFUSALS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EDQUOT,
        errno.EIO,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
    }
)
"""How a system says that a file is out of reach."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect (128 + SIGINT)."""


@contextlib.contextmanager
def failures(*, debug: bool) -> Iterator[None]:
    """Turn what a verb raises into a sentence and an exit code; `debug` also prints where it came from.

    Raises:
        typer.Exit: Something was raised inside.
    """
    try:
        yield
    except IsthmusError as error:
        raise _ended(str(error), error.exit_code, debug) from error
    except KeyboardInterrupt as error:
        raise _ended("stopped by Ctrl-C", INTERRUPTED, debug) from error
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        sentence = _about_machine(error)
        if sentence is None:
            raise _bug(error, debug) from error
        raise _ended(sentence, MachineError.exit_code, debug) from error


def _about_machine(error: Exception) -> str | None:
    """What is said where the machine is the cause and not the program; None where it is not."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" for {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and run the same command with --resume"
    if isinstance(error, OSError) and error.errno in _REFUSALS and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); check what lies there and who may write to it"
    if lacks_memory(error):
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return (
            f"the memory is not enough ({said}); take a smaller batch_size or micro_batch_size, name parts under "
            "recompute, or choose a smaller model"
        )
    return None


def _ended(sentence: str, code: int, debug: bool) -> typer.Exit:
    if debug:
        traceback.print_exc()
    typer.echo(f"isthmus: {clean(sentence)}", err=True)
    return typer.Exit(code)


def _bug(error: Exception, debug: bool) -> typer.Exit:
    sentence = f"this is a bug in isthmus ({type(error).__name__}: {clean(str(error))})"
    if debug:
        traceback.print_exc()
        typer.echo(f"isthmus: {sentence}; please report it with the lines above", err=True)
        return typer.Exit(IsthmusError.exit_code)
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="isthmus-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.write(f"{' '.join(sys.argv)}\n{traceback.format_exc()}")
        place = f"the details are in {log.name}"
    except OSError:
        place = "run it again with --debug for the details"
    typer.echo(f"isthmus: {sentence}; {place}, please report them", err=True)
    return typer.Exit(IsthmusError.exit_code)
