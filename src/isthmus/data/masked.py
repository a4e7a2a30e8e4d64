"""Rows for models that learn from pictures alone: a picture, and which of its patches are hidden."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.randomness import generator_of
from isthmus.core.sizes import Size
from isthmus.data.blockwise import blockwise_mask
from isthmus.data.masking import random_kept
from isthmus.data.processor import PictureReader, Processor, Purpose, Row
from isthmus.data.rows import RowKind
from isthmus.data.samples import ImageRef, Sample

Draw = Callable[[torch.Generator], tuple[Int[Tensor, " kept"] | None, Bool[Tensor, " patch"]]]
"""Draws the places of patches that alone are seen (None: something stands in the place of the others), and which are
hidden."""


def draw_patches(
    num_patches: int, masked: float, generator: torch.Generator
) -> tuple[Int[Tensor, " kept"], Bool[Tensor, " patch"]]:
    """Patches one by one (MAE): `masked` of them, as a share, are hidden and left out."""
    kept = random_kept(num_patches, 1 - masked, generator)
    hidden = torch.ones(num_patches, dtype=torch.bool)
    hidden[kept] = False
    return kept, hidden


def draw_blocks(
    grid: Size, most: int, least: int, generator: torch.Generator
) -> tuple[None, Bool[Tensor, " patch"]]:
    """Blocks of patches (BEiT): at most `most` are hidden, in blocks of at least `least`."""
    return None, blockwise_mask(grid, most, generator, least=least)


@final
class MaskedImageProcessor(Processor):
    """The sample's first picture, and a mask drawn from the sample's name and the row's choice.

    The choice of a row differs from epoch to epoch, so in training each epoch hides other patches; where it is fixed,
    as in validation, a picture is always masked in the same way.

    Args:
        pictures: Prepares pictures.
        draw: Draws the mask.
    """

    pad_id = 0

    def __init__(self, *, pictures: PictureReader, draw: Draw) -> None:
        self.pictures = pictures
        self.draw = draw

    def row(
        self, sample: Sample, *, rows: RowKind = "pictures", choice: int, purpose: Purpose = "training"
    ) -> Row:
        """One picture.

        Raises:
            BadSample: The picture cannot be used.
            DataError: The sample has no picture.
        """
        del rows, purpose
        kept, hidden = self.draw(generator_of(choice, "mask", sample.id))
        picture = self.pictures(first_image(sample))
        return Row(sample_id=sample.id, pictures=(picture,), kept=kept, masked=hidden)


@final
class PictureProcessor(Processor):
    """The sample's first picture and nothing else.

    Args:
        pictures: Prepares pictures.
    """

    pad_id = 0

    def __init__(self, *, pictures: PictureReader) -> None:
        self.pictures = pictures

    def row(
        self, sample: Sample, *, rows: RowKind = "pictures", choice: int, purpose: Purpose = "training"
    ) -> Row:
        """One picture.

        Raises:
            BadSample: The picture cannot be used.
            DataError: The sample has no picture.
        """
        del rows, choice, purpose
        return Row(sample_id=sample.id, pictures=(self.pictures(first_image(sample)),))


def first_image(sample: Sample) -> ImageRef:
    """The picture that is learnt from.

    Raises:
        DataError: The sample has none.
    """
    if not sample.images:
        raise DataError(
            f"{sample.origin} has no picture, which this model learns from; choose another data set"
        )
    return sample.images[0]
