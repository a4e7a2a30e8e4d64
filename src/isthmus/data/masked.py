"""Rows for masked image models: a picture and which of its patches are hidden."""

from typing import final

import torch

from isthmus.core.errors import DataError
from isthmus.core.randomness import generator_of
from isthmus.data.masking import random_kept
from isthmus.data.processor import PictureReader, Processor, Purpose, Row
from isthmus.data.rows import RowKind
from isthmus.data.samples import Sample


@final
class MaskedImageProcessor(Processor):
    """The sample's first picture, and a mask drawn from the sample's name and the row's choice.

    The choice of a row differs from epoch to epoch, so in training each epoch hides other patches; where it is fixed,
    as in validation, a picture is always masked in the same way.

    Args:
        pictures: Prepares pictures.
        num_patches: Patches of a prepared picture.
        masked: Share of them that is hidden.
    """

    pad_id = 0

    def __init__(self, *, pictures: PictureReader, num_patches: int, masked: float) -> None:
        self.pictures = pictures
        self.num_patches = num_patches
        self.masked = masked

    def row(
        self, sample: Sample, *, rows: RowKind = "pictures", choice: int, purpose: Purpose = "training"
    ) -> Row:
        """One picture.

        Raises:
            BadSample: The picture cannot be used.
            DataError: The sample has no picture.
        """
        del rows, purpose
        if not sample.images:
            raise DataError(
                f"{sample.origin} has no picture, which a masked image model learns from; choose another data set"
            )
        generator = generator_of(choice, "mask", sample.id)
        kept = random_kept(self.num_patches, 1 - self.masked, generator)
        hidden = torch.ones(self.num_patches, dtype=torch.bool)
        hidden[kept] = False
        return Row(sample_id=sample.id, pictures=(self.pictures(sample.images[0]),), kept=kept, masked=hidden)
