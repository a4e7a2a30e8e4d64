"""Pictures in batches for judging: a batch never holds one alone, so that each can be exchanged for another."""

import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.core.sizes import Size
from isthmus.data.images import ImageProcessor
from isthmus.data.masked import PictureProcessor
from isthmus.data.processor import PictureReader
from isthmus.data.sources.scenes import SceneSource
from isthmus.run.picture_batches import exchanged, picture_batches

CPU = torch.device("cpu")


def processor() -> PictureProcessor:
    half = (0.5, 0.5, 0.5)
    return PictureProcessor(
        pictures=PictureReader(images=ImageProcessor(size=Size(16, 16), resize="squash", mean=half, std=half))
    )


@pytest.mark.parametrize(("count", "sizes"), [(2, [2]), (64, [64]), (65, [33, 32]), (129, [43, 43, 43])])
def test_every_picture_comes_once_and_none_alone(count: int, sizes: list[int]) -> None:
    source = SceneSource(split="test", num_samples=count)
    batches = list(picture_batches(processor(), source, CPU))
    assert [len(batch) for batch in batches] == sizes
    names = [name for batch in batches for name in batch.sample_ids]
    assert names == [source.sample(index).id for index in range(count)]


def test_an_exchanged_batch_shows_no_row_its_own_picture() -> None:
    (batch,) = picture_batches(processor(), SceneSource(split="test", num_samples=5), CPU)
    other = exchanged(batch)
    assert batch.pixels is not None
    assert other.pixels is not None
    assert other.sample_ids == batch.sample_ids
    for row in range(5):
        assert torch.equal(other.pixels[row], batch.pixels[row - 1])
        assert not torch.equal(other.pixels[row], batch.pixels[row])


def test_one_picture_is_refused() -> None:
    with pytest.raises(DataError, match=r"there are 1 pictures to judge by; expected at least 2"):
        next(picture_batches(processor(), SceneSource(split="test", num_samples=1), CPU))
