"""TextCaps (Sidorov et al., 2020): captions of pictures that hold text."""

from pathlib import Path
from typing import final

from isthmus.core.errors import DataError
from isthmus.data.samples import ImagePart, Sample, Source, Turn
from isthmus.data.sources.annotations import CAPTION, load_rows, picture_name
from isthmus.data.sources.folder import ImageFolder


@final
class TextCaps(Source):
    """One row a picture with all its captions; the conversation asks for a caption and answers with the first.

    LLaVA-1.5's own rows also list words that an OCR system read; those are in another file and are left out.

    Args:
        file: An object whose list `data` has one caption a row (`image_id`, `caption_str`).
        images: Where the pictures lie.
        names: How they are called.

    Raises:
        DataError: The file or a row cannot be understood, or there is none.
    """

    def __init__(self, file: Path, images: Path, *, names: str = "{id}.jpg") -> None:
        self._images = ImageFolder(images)
        self._captions: dict[str, list[str]] = {}
        self._origins: dict[str, str] = {}
        self._names = names
        for row in load_rows(file, "data"):
            name = row.name("image_id")
            self._images.image(picture_name(names, name), row.where)
            self._captions.setdefault(name, []).append(row.text("caption_str"))
            self._origins.setdefault(name, row.where)
        if not self._captions:
            raise DataError(f"{file} holds no caption; expected at least one")
        self._order = tuple(self._captions)
        self.format = f"TextCaps ({len(self._order):,} pictures)"

    def __len__(self) -> int:
        return len(self._order)

    def sample(self, index: int) -> Sample:
        """The picture at `index`, unread, with its captions."""
        name = self._order[index]
        captions = tuple(self._captions[name])
        return Sample(
            id=name,
            origin=self._origins[name],
            images=(self._images.image(picture_name(self._names, name), self._origins[name]),),
            captions=captions,
            turns=(
                Turn("user", (ImagePart(0), f"\n{CAPTION}")),
                Turn("assistant", (captions[0],)),
            ),
        )

    def num_captions(self, index: int) -> int:
        """How many captions a picture has."""
        return len(self._captions[self._order[index]])

    def has_pictures(self, index: int) -> bool:
        """Every row has one."""
        del index
        return True
