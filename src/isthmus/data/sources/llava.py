"""Conversations as LLaVA publishes them (Liu et al., 2023): one JSON list, pictures in a folder.

Here, and only here, the text `<image>` is a marker: it becomes the place of a picture. As in the published code, a
marker anywhere in a turn moves to the turn's start with a newline after it; several keep their order.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from isthmus.core.errors import DataError
from isthmus.data.samples import ImagePart, Role, Sample, Source, Turn
from isthmus.data.sources.folder import ImageFolder
from isthmus.data.sources.tables import parse_json, read_text

MARKER = "<image>"
_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


class LlavaConversations(Source):
    """Rows of a JSON list: `{"id", "image", "conversations": [{"from", "value"}]}`.

    `image` is a path, a list of paths, or absent.

    Args:
        file: The JSON file.
        images: The folder that `image` is relative to.

    Raises:
        DataError: The file cannot be understood, is empty, or a row's markers and pictures do not match in number.
    """

    def __init__(self, file: Path | str, images: Path | str) -> None:
        self._file = Path(file)
        self._images = ImageFolder(Path(images))
        self._rows = _load(self._file)
        self.format = f"LLaVA conversations ({len(self._rows)} rows in {self._file.name})"
        if not self._rows:
            raise DataError(f"{file} holds no row; expected a list of conversations")
        # Every row is checked now: a wrong one must not stop a run after hours.
        for index in range(len(self._rows)):
            self.sample(index)

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample:
        """The row at `index`; its pictures are unread.

        Raises:
            DataError: The row cannot be understood.
        """
        row = self._rows[index]
        where = f"{self._file} row {index}"
        if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
            raise DataError(f"{where} has no list 'conversations'; expected LLaVA's format")
        found = row.get("image", [])
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{where} has an 'image' that is neither a path nor a list of paths")
        turns, markers = _turns(row["conversations"], where)
        if markers != len(names):
            raise DataError(
                f"{where} has {markers} {MARKER} marker(s) but {len(names)} picture(s); "
                "expected as many markers as pictures"
            )
        question, answers = _first_exchange(turns)
        return Sample(
            id=f"{index}:{row['id']}" if "id" in row else str(index),
            origin=f"{self._file.name} row {index}",
            images=tuple(self._images.image(name, where) for name in names),
            captions=_caption(turns, len(names)),
            turns=turns,
            question=question,
            answers=answers,
        )


def _load(file: Path) -> list[Any]:
    rows = parse_json(read_text(file), str(file), expected="a list of conversations")
    if not isinstance(rows, list):
        raise DataError(f"{file} holds {type(rows).__name__}; expected a list of conversations")
    return rows


def _turns(messages: list[Any], where: str) -> tuple[tuple[Turn, ...], int]:
    turns: list[Turn] = []
    markers = 0
    for message in messages:
        match message:
            case {"from": str(speaker), "value": str(value)} if speaker in _ROLES:
                pieces = value.split(MARKER)
                images = [ImagePart(markers + at) for at in range(len(pieces) - 1)]
                markers += len(images)
                words = "".join(pieces).strip() if images else value
                turns.append(Turn(_ROLES[speaker], _parts(images, words)))
            case _:
                raise DataError(
                    f"{where} has a turn without a 'from' of human, gpt or system and a 'value' of text"
                )
    return tuple(turns), markers


def _parts(images: list[ImagePart], words: str) -> tuple[str | ImagePart, ...]:
    if not images:
        return (words,)
    if not words:
        return tuple(images)
    return (*(part for image in images[:-1] for part in (image, "\n")), images[-1], f"\n{words}")


def _first_exchange(turns: tuple[Turn, ...]) -> tuple[str | None, tuple[str, ...]]:
    """What is asked first and its answer, so that rows can be judged as questions; nothing without either."""
    for asked, said in pairwise(turns):
        if (asked.role, said.role) == ("user", "assistant") and asked.text.strip():
            return asked.text.strip(), (said.text,)
    return None, ()


def _caption(turns: tuple[Turn, ...], num_images: int) -> tuple[str, ...]:
    # One picture, one request, one answer: the form of LLaVA's first-stage data, whose answers are captions.
    if num_images == 1 and [turn.role for turn in turns] == ["user", "assistant"]:
        return (turns[1].text,)
    return ()
