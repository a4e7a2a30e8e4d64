"""The mistakes Isthmus reports, by cause; each carries the exit code the command line ends with (design, section 7)."""


class IsthmusError(Exception):
    """Something went wrong that one clear sentence explains: what, what was found, what was expected, what to do."""

    exit_code = 1


class UsageError(IsthmusError):
    """The command or a call was used wrongly."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe names something that does not exist, does not fit or is missing."""


class DataError(IsthmusError):
    """A data set, a row or a picture cannot be used as it is."""

    exit_code = 3


class CheckpointError(IsthmusError):
    """A checkpoint or a run directory is damaged, missing, or belongs to something else."""

    exit_code = 4


class GuardError(IsthmusError):
    """A guard stopped the run before it could go on wrongly, for example a loss that is not finite."""

    exit_code = 5


class MachineError(IsthmusError):
    """The machine lacks something: disk space, an optional package, or leave to use the network."""

    exit_code = 6


class Stopped(IsthmusError):
    """A signal asked the run to stop; everything was saved before this was raised.

    Args:
        signal_number: 2 for SIGINT, 15 for SIGTERM; the exit code is 128 plus this number.
        message: What was saved and how to go on.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def lacks_memory(error: BaseException) -> bool:
    """Whether the machine's memory was not enough; torch says that of a processor's memory in a plain RuntimeError."""
    named = type(error).__name__ in ("MemoryError", "OutOfMemoryError")
    return named or "can't allocate memory" in str(error)
