"""Pictures in batches for judging, and the same batches with every picture exchanged for another."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from isthmus.core.batch import Batch
from isthmus.core.errors import DataError
from isthmus.data.collate import collate
from isthmus.data.masked import MaskedImageProcessor, PictureProcessor
from isthmus.data.samples import Source

_AT_ONCE = 64


def picture_batches(
    processor: MaskedImageProcessor | PictureProcessor, source: Source, device: torch.device
) -> Iterator[Batch]:
    """All pictures in batches of nearly equal size, at most 64 and never one alone, so that `exchanged` has a choice.

    Raises:
        DataError: There are fewer than two pictures.
    """
    if len(source) < 2:
        raise DataError(
            f"there are {len(source)} pictures to judge by; expected at least 2, as a control shows the model another "
            "picture's patches"
        )
    for chosen in np.array_split(np.arange(len(source)), math.ceil(len(source) / _AT_ONCE)):
        rows = [processor.row(source.sample(index), rows="pictures", choice=0) for index in map(int, chosen)]
        yield collate(rows, pad_id=processor.pad_id).to(device)


def exchanged(batch: Batch) -> Batch:
    """The batch with each picture in the next one's place; what is hidden stays."""
    assert batch.pixels is not None
    return replace(batch, pixels=batch.pixels.roll(1, dims=0))
