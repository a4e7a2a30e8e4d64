"""The loop: requests to a writer, several at once, each reply into the journal as soon as it is there."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from isthmus.curation.instructions.journal import Journal
from isthmus.curation.instructions.pace import Budget
from isthmus.curation.instructions.writer import Reply, Request, Writer

_LOOK_S = 0.2
"""How long at most until a stop signal is noticed."""


def ask_all(
    requests: Sequence[Request],
    writer: Writer,
    journal: Journal,
    budget: Budget,
    *,
    concurrency: int,
    between: Callable[[int], None],
) -> bool:
    """Ask for everything that the journal lacks.

    What is under way when something stops the loop is waited for and kept: it is paid for.

    Args:
        requests: What is wanted, in order.
        writer: Who writes.
        journal: Where replies are kept.
        budget: Counts tokens; those of the journal are counted in already.
        concurrency: Most requests under way.
        between: Called now and then with the number of replies that are there; may raise to stop.

    Returns:
        Whether everything is there; False where the money ran out.

    Raises:
        IsthmusError: The writer cannot go on.
    """
    missing = deque(request for request in requests if request.key not in journal.replies)
    under_way: dict[Future[Reply], str] = {}
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        try:
            while True:
                while missing and len(under_way) < concurrency and budget.allows(len(under_way)):
                    request = missing.popleft()
                    under_way[pool.submit(writer.write, request)] = request.key
                between(len(requests) - len(missing) - len(under_way))
                if not under_way:
                    return not missing
                failures = _collect(under_way, journal, budget, timeout_s=_LOOK_S)
                if failures:
                    raise failures[0]
        finally:
            writer.stop()
            while under_way:
                _collect(under_way, journal, budget, timeout_s=None)


def _collect(
    under_way: dict[Future[Reply], str], journal: Journal, budget: Budget, *, timeout_s: float | None
) -> list[BaseException]:
    """Keep the replies that are there, and give back what went wrong with others."""
    done, _ = wait(under_way, timeout=timeout_s, return_when=FIRST_COMPLETED)
    failures = []
    for future in done:
        key = under_way.pop(future)
        error = future.exception()
        if error is not None:
            failures.append(error)
        else:
            journal.add(key, future.result())
            budget.add(future.result())
    return failures
