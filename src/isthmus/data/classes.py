"""Rows for classifiers: a picture and the number of its class."""

from collections.abc import Sequence
from typing import final

from isthmus.core.errors import DataError
from isthmus.data.masked import first_image
from isthmus.data.processor import PictureReader, Processor, Purpose, Row
from isthmus.data.rows import RowKind
from isthmus.data.samples import Sample


@final
class ClassProcessor(Processor):
    """The sample's first picture with its class.

    Args:
        pictures: Prepares pictures.
        classes: The names of the classes; a sample's label is one of them.
    """

    pad_id = 0

    def __init__(self, *, pictures: PictureReader, classes: Sequence[str]) -> None:
        self.pictures = pictures
        self.classes = tuple(classes)
        self._numbers = {name: number for number, name in enumerate(self.classes)}

    def row(
        self, sample: Sample, *, rows: RowKind = "classes", choice: int, purpose: Purpose = "training"
    ) -> Row:
        """One picture.

        Raises:
            BadSample: The picture cannot be used.
            DataError: The sample has no picture, or a label that is no class.
        """
        del rows, choice, purpose
        if sample.label not in self._numbers:
            raise DataError(
                f"{sample.origin} has the class '{sample.label}'; expected one of model.classes: "
                f"{', '.join(self.classes)}"
            )
        picture = self.pictures(first_image(sample))
        return Row(sample_id=sample.id, pictures=(picture,), label=self._numbers[sample.label])
