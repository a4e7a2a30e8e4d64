"""TextCaps (Sidorov et al., 2020): captions of pictures that hold text."""

from pathlib import Path
from typing import final

from isthmus.core.errors import DataError
from isthmus.data.samples import ImagePart, Sample, Source, Turn
from isthmus.data.sources.annotations import CAPTION, load_rows, picture_name
from isthmus.data.sources.folder import ImageFolder

OCR = "\nReference OCR token: {}"
"""How LLaVA-1.5's rows tell the words that were read."""


@final
class TextCaps(Source):
    """One row a picture with all its captions; the conversation asks for a caption and answers with the first.

    LLaVA-1.5's own rows also list, after the question, the words that an OCR system read in the picture. TextVQA, whose
    pictures these are, publishes them.

    Args:
        file: An object whose list `data` has one caption a row (`image_id`, `caption_str`).
        images: Where the pictures lie.
        names: How they are called.
        ocr: An object whose list `data` has the words of one picture a row (`image_id`, `ocr_tokens`); with
            None, and for a picture in which no word was read, the question stands alone.

    Raises:
        DataError: A file or a row cannot be understood, there is no row, or the words of a picture are missing.
    """

    def __init__(self, file: Path, images: Path, *, names: str = "{id}.jpg", ocr: Path | None = None) -> None:
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
        self._words = {} if ocr is None else self._read(ocr)
        self.format = f"TextCaps ({len(self._order):,} pictures)"

    def _read(self, ocr: Path) -> dict[str, tuple[str, ...]]:
        found = {row.name("image_id"): row.texts("ocr_tokens", least=0) for row in load_rows(ocr, "data")}
        missing = [name for name in self._order if name not in found]
        if missing:
            raise DataError(
                f"{ocr} lacks {len(missing):,} of {len(self._order):,} pictures, first {missing[0]} "
                f"({self._origins[missing[0]]}); expected the words of the same split"
            )
        return found

    def __len__(self) -> int:
        return len(self._order)

    def sample(self, index: int) -> Sample:
        """The picture at `index`, unread, with its captions."""
        name = self._order[index]
        captions, words = tuple(self._captions[name]), self._words.get(name, ())
        read = OCR.format(", ".join(words)) if words else ""
        return Sample(
            id=name,
            origin=self._origins[name],
            images=(self._images.image(picture_name(self._names, name), self._origins[name]),),
            captions=captions,
            turns=(
                Turn("user", (ImagePart(0), f"\n{CAPTION}{read}")),
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
