"""Training batches: pure in seed and step, replaced where bad, prepared by threads that end."""

import threading
import time

import pytest
import torch

from isthmus.core.batch import Batch
from isthmus.core.errors import DataError, UsageError
from isthmus.core.randomness import order_of
from isthmus.data.pictures import BadSample
from isthmus.data.processor import Processor, Row
from isthmus.data.samples import MemorySource, Sample
from isthmus.data.stream import BatchStream, StreamOptions


class Plain(Processor):
    """Rows that hold the sample's number and the choice; some samples are bad."""

    def __init__(self, bad: tuple[int, ...] = (), broken: int = -1, slow: float = 0.0) -> None:
        self.pad_id = 0
        self.bad = bad
        self.broken = broken
        self.slow = slow

    def row(self, sample: Sample, *, rows: str, choice: int, purpose: str = "training") -> Row:
        time.sleep(self.slow)
        if int(sample.id) in self.bad:
            raise BadSample(f"{sample.id}.jpg is damaged")
        if int(sample.id) == self.broken:
            raise DataError(f"row {sample.id} has 2 markers but 1 image")
        number = int(sample.id) + 1
        return Row(sample_id=sample.id, token_ids=[number, choice % 97], targets=[number, choice % 97])


def source(number: int) -> MemorySource:
    return MemorySource([Sample(id=str(at), origin="", captions=("a", "b")) for at in range(number)])


def stream(number: int, processor: Processor | None = None, **options: object) -> BatchStream:
    settings = {"rows": "captions", "batch_size": 4, "workers": 0, "seed": 3, "stage": "align"} | options
    return BatchStream(
        processor=processor or Plain(), source=source(number), options=StreamOptions(**settings)
    )


def names(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.sample_ids]


def test_an_epoch_sees_every_row_once_in_the_stated_order() -> None:
    rows = stream(12)
    assert rows.steps_per_epoch == 3
    for epoch in (0, 1):
        seen = [name for step in range(3) for name in names(rows.micro_batches(3 * epoch + step))]
        assert seen == [str(at) for at in order_of(12, 3, "align", epoch).tolist()]


@pytest.mark.parametrize("num", [1, 2, 4])
def test_processes_share_the_rows_of_every_step(num: int) -> None:
    """Together they give what one gives, in its order, also where a bad sample is replaced."""
    broken = Plain(bad={2})
    alone = stream(13, broken, micro_batch_size=1)
    ranks = [stream(13, broken, micro_batch_size=1, rank=rank, num_ranks=num) for rank in range(num)]
    for step in (0, 2, 3, 7):
        parts = [names(rank.micro_batches(step)) for rank in ranks]
        assert {len(part) for part in parts} == {4 // num}
        assert [name for part in parts for name in part] == names(alone.micro_batches(step))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size 4 cannot be shared by 3 processes"):
        stream(12, num_ranks=3)


def test_steps_are_pure_whatever_came_before_and_however_many_threads() -> None:
    first = stream(50)
    with stream(50, workers=2) as threaded:
        for step in (0, 1, 2, 30, 31, 5, 4, 11, 12, 13):
            ours, theirs = first.micro_batches(step), threaded.micro_batches(step)
            assert names(ours) == names(theirs)
            assert torch.equal(ours[0].token_ids, theirs[0].token_ids)


def test_stages_and_seeds_differ() -> None:
    seen = {
        tuple(names(stream(50, **choice).micro_batches(0)))
        for choice in ({}, {"stage": "b"}, {"seed": 4}, {"captions": "all"})
    }
    assert len(seen) == 4


def test_micro_batches_are_the_batch_in_pieces() -> None:
    whole, pieces = (
        stream(20, batch_size=10).micro_batches(1),
        stream(20, batch_size=10, micro_batch_size=4).micro_batches(1),
    )
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert names(whole) == names(pieces)


def test_a_bad_sample_is_replaced_counted_and_named() -> None:
    clean, skipping = stream(400), stream(400, Plain(bad=(17, 40)))
    order = order_of(400, 3, "align", 0).tolist()
    for step in range(100):
        expected = names(clean.micro_batches(step))
        found = names(skipping.micro_batches(step))
        for place, name in enumerate(expected):
            if name in ("17", "40"):
                expected[place] = str(order[(4 * step + place + 200) % 400])
        assert found == expected
    report = skipping.report()
    assert (report.rows, report.skipped) == (400, 2)
    assert sorted(report.named) == ["17.jpg is damaged", "40.jpg is damaged"]
    # A run that resumes in the middle replaces alike.
    resumed = stream(400, Plain(bad=(17, 40)))
    assert names(resumed.micro_batches(60)) == names(skipping.micro_batches(60))


def test_too_many_bad_samples_stop_the_run() -> None:
    one = stream(20, Plain(bad=(3,)))
    for step in range(5):
        one.micro_batches(step)
    two = stream(20, Plain(bad=(3, 4)))
    with pytest.raises(
        DataError, match=r"2 of 20 samples \(samples in memory\) cannot be used.*\.jpg is damaged"
    ):
        for step in range(5):
            two.micro_batches(step)
    with pytest.raises(DataError, match="11 of 1,000 samples"):
        stream(1000, Plain(bad=tuple(range(1000))), workers=1).micro_batches(0)


def test_mistakes_in_rows_are_not_skipped_and_reach_the_caller() -> None:
    with (
        stream(8, Plain(broken=5), workers=2) as rows,
        pytest.raises(DataError, match="2 markers but 1 image"),
    ):
        for step in range(2):
            rows.micro_batches(step)


def test_threads_end_with_the_stream_even_when_it_breaks_off() -> None:
    before = set(threading.enumerate())  # streams that other tests left open may still have threads
    with pytest.raises(KeyboardInterrupt), stream(100, Plain(slow=0.01), workers=3) as rows:
        rows.micro_batches(0)
        started = [thread for thread in threading.enumerate() if thread not in before]
        assert any(thread.name.startswith("isthmus-data") for thread in started)
        raise KeyboardInterrupt
    assert not any(thread.is_alive() for thread in started)


def test_shares_are_reported() -> None:
    rows = stream(8)
    rows.micro_batches(0)
    rows.micro_batches(0)
    report = rows.report()
    assert (report.rows, report.num_tokens) == (4, 8)
    assert report.supervised_fraction == 0.5
    assert report.truncated_fraction == 0.0


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(DataError, match=r"3 rows .* fewer than one batch of 4"):
        stream(3)
    with pytest.raises(DataError, match="data set is empty"):
        stream(0)
    with pytest.raises(UsageError, match="must be at least 1"):
        stream(8, micro_batch_size=0)
