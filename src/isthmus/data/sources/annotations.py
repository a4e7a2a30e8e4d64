"""Published annotation files: JSON records read with errors that name file and row, and questions made into rows."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from isthmus.core.errors import DataError
from isthmus.data.samples import ImagePart, Sample, Source, Turn
from isthmus.data.sources.folder import ImageFolder
from isthmus.data.sources.tables import parse_json, read_text

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."
"""LLaVA-1.5's response prompts (Liu et al., 2023b, table 7)."""


@final
@dataclass(frozen=True)
class Record:
    """One JSON object of a file; every value is checked when it is read.

    Attributes:
        values: The object.
        where: File and row, for messages.
    """

    values: dict[str, Any]
    where: str

    @staticmethod
    def of(value: object, where: str) -> "Record":
        """An object that stands at a place of a file.

        Raises:
            DataError: It is no object.
        """
        if not isinstance(value, dict):
            raise DataError(f"{where} is {_kind(value)}; expected an object")
        return Record(value, where)

    def text(self, key: str) -> str:
        """A text that is not empty, without outer spaces."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "a text")
        return value.strip()

    def texts(self, key: str, *, least: int = 1) -> tuple[str, ...]:
        """Texts, at least so many of them."""
        value = self.values.get(key)
        if (
            not isinstance(value, list)
            or len(value) < least
            or not all(isinstance(one, str) for one in value)
        ):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def name(self, key: str) -> str:
        """A number or a text that names something."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise self.wrong(key, "a number or a text")
        return str(value)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "a number")
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """So many finite numbers."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(key, f"{count} numbers")
        parts = Record({str(at): one for at, one in enumerate(value)}, f"{self.where}, in '{key}',")
        return tuple(parts.number(str(at)) for at in range(count))

    def records(self, key: str) -> tuple["Record", ...]:
        """A list of objects, each named by its place."""
        value = self.values.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return tuple(Record.of(one, f"{self.where}, '{key}' {at},") for at, one in enumerate(value))

    def wrong(self, key: str, expected: str) -> DataError:
        """What is said of a value that is not what it should be."""
        if key not in self.values:
            return DataError(f"{self.where} has no '{key}'; expected {expected}")
        found = self.values[key]
        shown = repr(found)[:40] if isinstance(found, str | int | float) else _kind(found)
        return DataError(f"{self.where} has '{key}' = {shown}; expected {expected}")


def load_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: The file is missing, larger than 2 GiB, no UTF-8, or no JSON.
    """
    return parse_json(read_text(file), str(file), expected="the file as it is published")


def load_rows(file: Path, key: str | None = None) -> Iterator[Record]:
    """The rows of a list, or of the list under `key` of an object; rows are counted from 0.

    Raises:
        DataError: The file, or a row, is something else.
    """
    return rows_of(load_json(file), file, key)


def rows_of(found: object, file: Path, key: str | None = None) -> Iterator[Record]:
    """The rows of what a file holds: a list, or the list under `key` of an object; counted from 0.

    Raises:
        DataError: It, or a row, is something else.
    """
    rows = found if key is None else Record.of(found, str(file)).values.get(key)
    if not isinstance(rows, list):
        expected = "a list" if key is None else f"an object with a list '{key}'"
        raise DataError(f"{file} holds {_kind(rows if key is None else found)}; expected {expected}")
    for row, value in enumerate(rows):
        yield Record.of(value, f"{file} row {row}")


def load_named_rows(file: Path) -> Iterator[tuple[str, Record]]:
    """The entries of an object, each with its name.

    Raises:
        DataError: The file, or an entry, is something else.
    """
    for name, value in Record.of(load_json(file), str(file)).values.items():
        yield name, Record.of(value, f"{file} entry '{name}'")


def picture_name(pattern: str, identifier: str, *, subtype: str = "") -> str:
    """The file of a picture: `{id}` is its id, `{id12}` the id with zeros up to 12 digits, `{subtype}` COCO's split."""
    return (
        pattern.replace("{id12}", identifier.zfill(12))
        .replace("{id}", identifier)
        .replace("{subtype}", subtype)
    )


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question about one picture.

    Attributes:
        id: The question's own name.
        origin: File and row.
        picture: The picture's file.
        question: The whole question, with any options, without a response prompt.
        answers: Accepted answers, the one to learn first.
        kind: Kind of question or answer, for tables.
    """

    id: str
    origin: str
    picture: str
    question: str
    answers: tuple[str, ...]
    kind: str = ""


@final
class Questions(Source):
    """Questions about pictures as LLaVA-1.5's conversations: picture, newline, question, newline, response prompt.

    Args:
        asked: The questions.
        images: Where the pictures lie.
        name: What the data set is called in messages.
        prompt: The response prompt; empty for none.
        per_picture: All questions about a picture make one conversation, whose first question carries the prompt, as
            LLaVA-1.5 does to save time; otherwise each question is a row of its own.

    Raises:
        DataError: There is no question, or a picture lies outside the folder.
    """

    def __init__(
        self,
        asked: Iterable[Asked],
        *,
        images: Path,
        name: str,
        prompt: str = "",
        per_picture: bool = False,
    ) -> None:
        folder = ImageFolder(images)
        self._prompt = prompt
        groups: dict[str, list[Asked]] = {}
        checked: set[str] = set()
        for one in asked:
            if one.picture not in checked:
                folder.image(one.picture, one.origin)
                checked.add(one.picture)
            groups.setdefault(one.picture if per_picture else f"{len(groups)}", []).append(one)
        self._images = folder
        self._rows = tuple(tuple(group) for group in groups.values())
        if not self._rows:
            raise DataError(f"the {name} files hold no question; expected at least one")
        count = sum(len(row) for row in self._rows)
        self.format = f"{name} ({count:,} questions in {len(self._rows):,} rows)"

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample:
        """The conversation at `index`; its picture is unread. One question alone is also there as `question`."""
        row = self._rows[index]
        first = row[0]
        asked = (f"{first.question}\n{self._prompt}" if self._prompt else first.question, *_later(row))
        turns: list[Turn] = []
        for words, one in zip(asked, row, strict=True):
            parts = (ImagePart(0), f"\n{words}") if one is first else (words,)
            turns += [Turn("user", parts), Turn("assistant", (one.answers[0],))]
        alone = len(row) == 1
        return Sample(
            id=first.id,
            origin=first.origin,
            images=(self._images.image(first.picture, first.origin),),
            turns=tuple(turns),
            question=asked[0] if alone else None,
            answers=first.answers if alone else (),
            kind=first.kind if alone else "",
        )

    def has_pictures(self, index: int) -> bool:
        """Every row has one."""
        del index
        return True


def most_common(answers: Sequence[str]) -> str:
    """The answer that was given most often; of several the one that came first."""
    return max(dict.fromkeys(answers), key=list(answers).count)


def led_by(best: str, answers: Sequence[str]) -> tuple[str, ...]:
    """All answers, as often as they were given, with the best one in front."""
    rest = list(answers)
    if best in rest:
        rest.remove(best)
    return (best, *rest)


def _later(row: Sequence[Asked]) -> tuple[str, ...]:
    return tuple(one.question for one in row[1:])


def _kind(value: object) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")
