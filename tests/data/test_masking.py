"""Which patches stay: a pure function of run, stage, epoch and place, so that no worker or restart can change it."""

import pytest
import torch

from isthmus.core.randomness import generator_of
from isthmus.data.masking import random_kept
from isthmus.data.processor import Processor, Row
from isthmus.data.samples import MemorySource, Sample
from isthmus.data.stream import BatchStream, StreamOptions

SAMPLES = MemorySource([Sample(id=str(at), origin="", captions=("a",)) for at in range(12)])


class Plain(Processor):
    """Rows of one token."""

    pad_id = 0

    def row(self, sample: Sample, *, rows: str, choice: int, purpose: str = "training") -> Row:
        return Row(sample_id=sample.id, token_ids=[1])


def kept_of(steps: list[int], *, workers: int = 0, **changes: object) -> list[torch.Tensor]:
    settings = {"rows": "captions", "batch_size": 4, "seed": 3, "stage": "masked", "workers": workers}
    options = StreamOptions(**settings | {"num_patches": 64, "patches_kept": 0.25} | changes)
    with BatchStream(processor=Plain(), source=SAMPLES, options=options) as stream:
        return [torch.cat([batch.kept for batch in stream.micro_batches(step)]) for step in steps]


def test_the_share_is_rounded_down_and_every_patch_is_as_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [random_kept(196, 0.25, generator) for _ in range(2000)]
    for kept in drawn[:50]:
        assert len(kept) == 49, "the 49 of 196 of MAE and FLIP"
        assert torch.equal(kept, kept.unique()), "each once, in reading order"
    counts = torch.bincount(torch.cat(drawn), minlength=196)
    # Binomial with mean 500 and deviation 19: none of 196 strays five deviations.
    assert counts.min() > 400
    assert counts.max() < 600
    assert len(random_kept(7, 0.5, generator)) == 3
    with pytest.raises(ValueError, match=r"0\.1 of 9 patches is less than one"):
        random_kept(9, 0.1, generator)


def test_patches_depend_on_seed_stage_epoch_and_place_alone() -> None:
    first = kept_of([0, 1, 2, 3, 7])
    assert all(torch.equal(*pair) for pair in zip(first, kept_of([0, 1, 2, 3, 7], workers=2), strict=True))
    assert torch.equal(first[4], kept_of([7])[0]), "whatever came before"
    micro = kept_of([0], micro_batch_size=2)
    assert torch.equal(first[0], micro[0])
    rows = torch.cat(first[:4])
    assert len(rows.unique(dim=0)) == len(rows), "another draw for each row and epoch"
    for changes in ({"seed": 4}, {"stage": "other"}):
        assert not torch.equal(first[0], kept_of([0], **changes)[0])
    expected = random_kept(64, 0.25, generator_of(3, "kept", "masked", 1, 2))
    assert torch.equal(kept_of([3])[0][2], expected)


def test_without_a_share_nothing_is_left_out() -> None:
    options = StreamOptions(rows="captions", batch_size=4, workers=0)
    (batch,) = BatchStream(processor=Plain(), source=SAMPLES, options=options).micro_batches(0)
    assert batch.kept is None
    assert len(batch) == 4
