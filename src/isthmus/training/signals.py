"""Ctrl-C and SIGTERM: the first asks the run to finish its step and save, the second ends it at once."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self, final

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAsked(BaseException):
    """Raised by `StopSignals.check` to leave long work such as validation; the trainer turns it into a save."""


@final
class StopSignals:
    """Notes stop signals while a `with` block runs, then gives the former handlers back.

    Handlers can be installed from the main thread only; elsewhere the block runs without them.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._former: dict[signal.Signals, object] = {}

    @property
    def received(self) -> int | None:
        """The number of the signal that came, or None."""
        return self._received

    def check(self) -> None:
        """Called by long work between its pieces, for example by validation after each batch.

        Raises:
            StopAsked: A stop signal came.
        """
        if self._received is not None:
            raise StopAsked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            os._exit(128 + number)
        self._received = number
        # os.write, because a handler may interrupt a print.
        os.write(2, b"\nfinishing this step and saving; once more to stop at once\n")
