"""Rows for dual encoders: a picture, or a region of one, and a text apart from it."""

from dataclasses import replace
from typing import final

from isthmus.core.errors import DataError
from isthmus.data.marked import Region, alpha_of, everywhere
from isthmus.data.processor import Picture, PictureReader, Processor, Purpose, Row
from isthmus.data.rows import EVERY, RowKind, turns_of
from isthmus.data.samples import Sample
from isthmus.data.text import CaptionEncoder


@final
class DualEncoderProcessor(Processor):
    """Rows for a dual encoder: the sample's first picture and a caption, or one of its regions and what is said of it.

    Args:
        pictures: Prepares pictures.
        captions: Tokenises captions.
        marks: Whether the vision encoder reads which part is meant; then whole pictures are marked everywhere.
    """

    def __init__(self, *, pictures: PictureReader, captions: CaptionEncoder, marks: bool = False) -> None:
        self.pictures = pictures
        self.captions = captions
        self.marks = marks
        self.pad_id = captions.pad_id

    def row(
        self, sample: Sample, *, rows: RowKind = "captions", choice: int, purpose: Purpose = "training"
    ) -> Row:
        """One pair; as a prompt, the picture alone.

        Raises:
            BadSample: The picture or the mask cannot be used.
            DataError: The sample has no caption, or no region.
        """
        if rows == "regions":
            return self._region_row(sample, choice)
        caption = turns_of(sample, rows="captions", choice=choice)[-1].text
        pictures = tuple(self._whole(self.pictures(image)) for image in sample.images[:1])
        if purpose == "prompt":
            return Row(sample_id=sample.id, pictures=pictures)
        if choice == EVERY:
            encoded = [self.captions.encode_caption(one) for one in sample.captions]
            texts, cut = tuple(ids for ids, _ in encoded), any(cut for _, cut in encoded)
            return Row(sample_id=sample.id, pictures=pictures, texts=texts, truncated=cut)
        ids, truncated = self.captions.encode_caption(caption)
        return Row(sample_id=sample.id, pictures=pictures, token_ids=ids, truncated=truncated)

    def marked(self, picture: Picture, region: Region, *, name: str) -> Picture:
        """The picture with a region marked.

        Raises:
            BadSample: The mask has another size than the picture.
        """
        assert picture.size is not None
        images = self.pictures.images
        return replace(
            picture, alpha=alpha_of(region.mask.read(), picture=picture.size, images=images, name=name)
        )

    def _whole(self, picture: Picture) -> Picture:
        return replace(picture, alpha=everywhere(self.pictures.images)) if self.marks else picture

    def _region_row(self, sample: Sample, choice: int) -> Row:
        if not sample.regions:
            raise DataError(
                f"{sample.origin} has no region, which rows of kind 'regions' need; "
                "choose other rows or another data set"
            )
        region = sample.regions[choice % len(sample.regions)]
        image = sample.images[0]
        picture = self.marked(self.pictures(image), region, name=image.name)
        ids, truncated = self.captions.encode_caption(region.caption)
        return Row(sample_id=sample.id, pictures=(picture,), token_ids=ids, truncated=truncated)
