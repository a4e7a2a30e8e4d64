"""Texts that stand in a step twice are counted across its micro-batches and told of once."""

import logging

import pytest
import torch

from isthmus.core.batch import Batch
from isthmus.data.processor import Processor, Row
from isthmus.data.repeats import repeated_share
from isthmus.data.samples import MemorySource, Sample
from isthmus.data.stream import BatchStream, StreamOptions


def batch(rows: list[list[int]], own: list[int] | None = None) -> Batch:
    longest = max(map(len, rows))
    return Batch(
        sample_ids=tuple(map(str, range(len(rows)))),
        token_ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        attention_mask=torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows]),
        image_of_text=None if own is None else torch.tensor(own),
    )


def test_the_share_counts_every_text_that_has_an_equal() -> None:
    assert repeated_share([batch([[1, 2], [3], [1, 2], [4, 5, 6]])]) == 0.5
    assert repeated_share([batch([[1, 2], [3]]), batch([[4, 4, 4], [1, 2]])]) == 0.5, "whatever the padding"
    assert repeated_share([batch([[1], [1, 0]])]) == 0.0, "a word with the id that fills up is a word"
    assert repeated_share([batch([[1], [1], [2]], own=[0, 0, 1])]) == 0.0, "one picture may say a thing twice"
    assert repeated_share([batch([[1], [1], [2], [1]], own=[0, 0, 1, 1])]) == 0.75
    assert repeated_share([Batch(sample_ids=("0",))]) == 0.0


class Alike(Processor):
    """Two texts in turn."""

    pad_id = 0

    def row(self, sample: Sample, *, rows: str, choice: int, purpose: str = "training") -> Row:
        return Row(sample_id=sample.id, token_ids=[1 + int(sample.id) % 2])


@pytest.mark.parametrize(("compares", "told"), [(True, 1), (False, 0)])
def test_repeats_are_told_of_once(compares: bool, told: int, caplog: pytest.LogCaptureFixture) -> None:
    source = MemorySource([Sample(id=str(at), origin="", captions=("a",)) for at in range(20)])
    settings = {"rows": "captions", "batch_size": 10, "workers": 0, "stage": "contrast", "compares": compares}
    with (
        caplog.at_level(logging.WARNING),
        BatchStream(processor=Alike(), source=source, options=StreamOptions(**settings)) as stream,
    ):
        for step in range(3):
            stream.micro_batches(step)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == told
    assert all(one.startswith("stage contrast: 100% of the texts of its first step") for one in said)
