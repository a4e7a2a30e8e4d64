"""How fast and how patiently an endpoint is asked, and when the money is spent."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import final

from isthmus.core.errors import MachineError
from isthmus.core.randomness import seed_of
from isthmus.curation.instructions.writer import Reply

LONGEST_WAIT_S = 120.0
"""Who asks for more patience than this is not waited for: the run stops and can go on later."""

_BASE_S = 1.0


@final
class RateLimiter:
    """Spaces requests evenly over the minute, for all threads together.

    Args:
        per_minute: Most requests a minute.
        clock: Seconds that only grow.
        sleep: Waits for so many seconds; None waits until then or until `stop`.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._gap = 60.0 / per_minute
        self._clock = clock
        self._stopped = threading.Event()
        self._sleep = self._stopped.wait if sleep is None else sleep
        self._lock = threading.Lock()
        self._next = float("-inf")

    def wait(self) -> None:
        """Wait for the next free place.

        Raises:
            MachineError: The run was stopped meanwhile.
        """
        with self._lock:
            now = self._clock()
            mine = max(now, self._next)
            self._next = mine + self._gap
        self._pause(mine - now)

    def hold(self, seconds: float) -> None:
        """Let nobody start for so long, and wait as long: the endpoint asked all of us to be slower.

        Raises:
            MachineError: The run was stopped meanwhile.
        """
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
        self._pause(seconds)

    def stop(self) -> None:
        """End all waits now."""
        self._stopped.set()

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)
        if self._stopped.is_set():
            raise MachineError("the run was stopped before this request was sent; go on with --resume")


def backoff(attempt: int, key: str) -> float:
    """Seconds before the repetition `attempt`, counted from 0: doubling, spread by half so that threads part."""
    spread = seed_of("backoff", key, attempt) % 1000 / 1000
    return min(_BASE_S * 2**attempt * (0.5 + 0.5 * spread), LONGEST_WAIT_S)


def retry_after(header: str | None, *, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - now(), 0.0)
    except ValueError:
        return None


@final
@dataclass(kw_only=True)
class Budget:
    """What was spent, and whether one more request may be started.

    Attributes:
        price_in: Price of a million tokens read.
        price_out: Price of a million tokens written.
        most: The most that may be spent; None for no limit.
    """

    price_in: float = 0.0
    price_out: float = 0.0
    most: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    _dearest: float = 0.0

    @property
    def cost(self) -> float:
        """The price of all tokens so far."""
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    def add(self, reply: Reply) -> None:
        """Count a reply."""
        price = (reply.tokens_in * self.price_in + reply.tokens_out * self.price_out) / 1e6
        self._dearest = max(self._dearest, price)
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out

    def allows(self, under_way: int) -> bool:
        """Whether one more fits, if it and those under way are as dear as the dearest so far."""
        return self.most is None or self.cost + (under_way + 1) * self._dearest <= self.most
