"""Pace, patience and money, with a clock of the test's own."""

import pytest

from isthmus.core.errors import MachineError
from isthmus.curation.instructions import pace
from isthmus.curation.instructions.pace import LONGEST_WAIT_S, Budget, RateLimiter, backoff, retry_after
from isthmus.curation.instructions.writer import Reply


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_are_spaced_evenly_and_a_hold_delays_all() -> None:
    clock = Clock()
    limiter = RateLimiter(30, clock=clock, sleep=clock.sleep)
    starts = []
    for _ in range(3):
        limiter.wait()
        starts.append(clock.now)
    limiter.hold(10)
    limiter.wait()
    assert [*starts, clock.now] == [100, 102, 104, 114]


def test_a_late_request_does_not_earn_a_burst() -> None:
    clock = Clock()
    limiter = RateLimiter(60, clock=clock, sleep=clock.sleep)
    limiter.wait()
    clock.now += 30
    limiter.wait()
    limiter.wait()
    assert clock.now == 131


def test_who_waits_when_the_run_stops_gives_up() -> None:
    limiter = RateLimiter(1)
    limiter.wait()
    limiter.stop()
    with pytest.raises(MachineError, match="the run was stopped"):
        limiter.wait()


def test_repetitions_wait_twice_as_long_each_time_and_threads_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_BASE_S", 1.0)
    for attempt in range(5):
        waits = {backoff(attempt, f"key {number}") for number in range(20)}
        assert len(waits) > 10
        assert all(2**attempt / 2 <= wait <= 2**attempt for wait in waits)
    assert backoff(30, "key") == LONGEST_WAIT_S


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", None),
        ("-3", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None) -> None:
    assert retry_after(header, now=lambda: 40.0) == expected


def test_the_budget_stops_before_the_dearest_reply_would_not_fit() -> None:
    budget = Budget(price_in=1.0, price_out=10.0, most=0.001)
    budget.add(Reply(text="", tokens_in=100, tokens_out=20))
    assert budget.cost == pytest.approx(0.0003)
    assert budget.allows(0)
    assert budget.allows(1)
    assert not budget.allows(2)
    budget.add(Reply(text="", tokens_in=100, tokens_out=40))
    assert budget.cost == pytest.approx(0.0008)
    assert not budget.allows(0)
    assert Budget(price_in=1.0).allows(1000)
