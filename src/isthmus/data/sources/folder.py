"""A folder of pictures with a table (CSV, TSV or JSONL), or with a text file beside each picture."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.core.errors import DataError
from isthmus.data.samples import FileImage, ImagePart, ImageRef, Role, Sample, Source, Turn
from isthmus.data.sources.tables import parse_json, read_text

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
HEADERS = (("filepath", "title"), ("image", "caption"))
"""Pairs of column names that are understood: OpenCLIP's, and the plain words."""
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class ImageFolder:
    """Finds pictures inside one folder and nowhere else.

    Attributes:
        root: The folder.
    """

    root: Path
    _resolved: Path = field(init=False)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder; expected the folder that holds the pictures")
        object.__setattr__(self, "_resolved", self.root.resolve())

    def image(self, name: str, origin: str) -> ImageRef:
        """A picture by its path relative to the folder; whether it exists is seen when it is read.

        Raises:
            DataError: The path is absolute, or leads out of the folder, also by a symbolic link.
        """
        path = Path(name)
        if path.is_absolute() or "\0" in name or not name:
            raise DataError(f"{origin} names the picture {name!r}; expected a path relative to {self.root}")
        if not (self.root / path).resolve().is_relative_to(self._resolved):
            raise DataError(
                f"{origin} names the picture {name!r}, which lies outside {self.root}; keep pictures inside it"
            )
        return FileImage(self.root / path, name=name)


class Folder(Source):
    """Pictures of a folder with their captions or conversations.

    A CSV or TSV table has the columns `filepath` and `title`, or `image` and `caption`; rows that name the same
    picture are its captions. JSONL has `image` with `caption` or `captions`, or `images` with `messages` (roles, and
    contents as text or as a list of `{"type": "image"}` and `{"type": "text", "text": ...}`). Without a table
    every picture `x.jpg` has its caption in `x.txt`.

    Args:
        path: The folder that every picture lies in.
        table: A table file, relative to the folder or on its own; None for text files beside the pictures.

    Raises:
        DataError: Something is missing, a row cannot be understood, a picture leaves the folder, or there is no row.
    """

    def __init__(self, path: Path | str, table: Path | str | None = None) -> None:
        self._images = ImageFolder(Path(path))
        root = self._images.root
        if table is None:
            self._samples = list(_beside(self._images))
            self.format = f"pictures with a text file beside each ({len(self._samples)} pairs)"
        else:
            file = Path(table) if Path(table).is_file() else root / table
            kind, rows = _table(file)
            if kind == "JSONL":
                self._samples = [_sample(record, file, row, self._images) for row, record in rows]
            else:
                self._samples = _grouped(rows, file, self._images)
            self.format = f"{kind} table {file.name} ({len(self._samples)} pictures or rows)"
        if not self._samples:
            raise DataError(f"{root} holds no sample ({self.format}); expected pictures with captions")
        _refuse_duplicates(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int) -> Sample:
        """The sample at `index`; its pictures are unread."""
        return self._samples[index]


def _beside(images: ImageFolder) -> Iterator[Sample]:
    for path in sorted(images.root.rglob("*")):
        if path.suffix.lower() not in PICTURES:
            continue
        name = path.relative_to(images.root).as_posix()
        text = path.with_suffix(".txt")
        if not text.is_file():
            raise DataError(
                f"{path} has no {text.name} beside it; write its caption there, or name a table of captions"
            )
        caption = read_text(text).strip()
        yield Sample(
            id=name.removesuffix(path.suffix),
            origin=name,
            images=(images.image(name, name),),
            captions=(caption,),
        )


def _table(file: Path) -> tuple[str, Iterator[tuple[int, Any]]]:
    text = read_text(file)
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        return "JSONL", _json_lines(text, file)
    first = text.split("\n", 1)[0]
    kind = "TSV" if "\t" in first else "CSV"
    rows = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if kind == "TSV" else ",", strict=True
    )
    columns = next((pair for pair in HEADERS if set(pair) <= set(rows.fieldnames or ())), None)
    if columns is None:
        wanted = " or ".join(f"'{a}' and '{b}'" for a, b in HEADERS)
        raise DataError(
            f"{file} has the columns {', '.join(map(repr, rows.fieldnames or ()))}; expected {wanted}"
        )
    return kind, _cells(rows, columns, file)


def _cells(rows: csv.DictReader, columns: tuple[str, str], file: Path) -> Iterator[tuple[int, Any]]:
    try:
        for row in rows:
            name, caption = (row[column] for column in columns)
            if not name or caption is None or not caption.strip():
                raise DataError(f"{file} line {rows.line_num} has no picture or no caption; expected both")
            yield rows.line_num, (name, caption)
    except csv.Error as error:
        raise DataError(
            f"{file} line {rows.line_num} is no valid table row ({error}); mend its quotes"
        ) from error


def _json_lines(text: str, file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        record = parse_json(line, f"{file} line {number}")
        if not isinstance(record, dict):
            raise DataError(f"{file} line {number} holds {type(record).__name__}; expected one object a line")
        yield number, record


def _grouped(rows: Iterator[tuple[int, Any]], file: Path, images: ImageFolder) -> list[Sample]:
    captions: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for line, (name, caption) in rows:
        captions.setdefault(name, []).append(caption)
        first.setdefault(name, line)
    return [
        Sample(
            id=name,
            origin=f"{file.name} line {first[name]}",
            images=(images.image(name, f"{file} line {first[name]}"),),
            captions=tuple(found),
        )
        for name, found in captions.items()
    ]


def _sample(record: dict[str, Any], file: Path, line: int, images: ImageFolder) -> Sample:
    origin = f"{file.name} line {line}"
    names = record.get("images", [record["image"]] if "image" in record else [])
    found = record.get("captions", record.get("caption", []))
    captions = [found] if isinstance(found, str) else found
    for value, key in ((names, "images"), (captions, "captions")):
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise DataError(
                f"{file} line {line} has {key} that are not a list of strings; expected a list of strings"
            )
    turns = _turns(record.get("messages", []), len(names), f"{file} line {line}")
    if not captions and not turns:
        raise DataError(f"{file} line {line} has neither captions nor messages; expected one of them")
    return Sample(
        id=str(record.get("id", names[0] if captions and names else f"line {line}")),
        origin=origin,
        images=tuple(images.image(name, f"{file} line {line}") for name in names),
        captions=tuple(captions),
        turns=turns,
    )


def _turns(messages: Any, num_images: int, where: str) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    used = 0
    for message in messages if isinstance(messages, list) else [messages]:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise DataError(f"{where} has a message of role {role!r}; expected system, user or assistant")
        content = message.get("content")
        pieces = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts: list[str | ImagePart] = []
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            match piece:
                case {"type": "text", "text": str(text)}:
                    parts.append(text)
                case {"type": "image"}:
                    parts.append(ImagePart(used))
                    used += 1
                case _:
                    raise DataError(
                        f"{where} has content that is neither text nor an image; expected a text or a list of both"
                    )
        turns.append(Turn(_ROLES[role], tuple(parts)))
    if turns and used == 0 and num_images:
        # Text-only messages: the pictures stand before the first user turn's words.
        at = next((at for at, turn in enumerate(turns) if turn.role == "user"), None)
        if at is not None:
            pictures = tuple(ImagePart(index) for index in range(num_images))
            turns[at], used = Turn("user", (*pictures, *turns[at].parts)), num_images
    if used != num_images and turns:
        raise DataError(
            f"{where} has {used} image part(s) in its messages, but names {num_images} picture(s); expected as many"
        )
    return tuple(turns)


def _refuse_duplicates(samples: list[Sample]) -> None:
    seen: dict[str, str] = {}
    for sample in samples:
        if sample.id in seen:
            raise DataError(
                f"'{sample.id}' occurs at {seen[sample.id]} and again at {sample.origin}; keys must be unique"
            )
        seen[sample.id] = sample.origin
