"""Tar shards in WebDataset form: `KEY.jpg` beside `KEY.json` or `KEY.txt`, in any order within a shard."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.core.errors import DataError
from isthmus.core.json_text import loads
from isthmus.data.pictures import BadSample
from isthmus.data.samples import ImageRef, MissingImage, Sample, Source
from isthmus.data.sources.tar import Member, TarFile

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXTS = ("json", "txt")
MAX_SHARDS = 100_000


@dataclass(frozen=True)
class ShardImage(ImageRef):
    """A picture inside a tar file."""

    archive: TarFile
    member: Member

    def read(self) -> bytes:
        """The member's bytes.

        Raises:
            BadSample: The tar file became shorter since it was opened.
        """
        return self.archive.read(self.member)


@dataclass(frozen=True, slots=True)
class _Entry:
    archive: TarFile
    key: str
    picture: Member | None
    text: Member | None


class Shards(Source):
    """All samples of some tar files, in the order of the files and of the keys in them.

    Args:
        patterns: Paths that may hold `*`, `?`, `[ab]` and braces such as `train-{000000..000005}.tar`
            or `{train,val}.tar`; `[{]` is a brace of the name itself, see `escaped`.

    Raises:
        DataError: No file matches, a file is no plain tar file, a key occurs twice, or there is no sample at all.
    """

    def __init__(self, patterns: str | Sequence[str]) -> None:
        paths = expand([patterns] if isinstance(patterns, str) else patterns)
        self._entries: list[_Entry] = []
        seen: dict[str, Path] = {}
        for path in paths:
            for entry in _entries(TarFile(path)):
                if entry.key in seen:
                    raise DataError(
                        f"the key '{entry.key}' occurs in {seen[entry.key]} and again in {path}; keys must be unique"
                    )
                seen[entry.key] = path
                self._entries.append(entry)
        if not self._entries:
            raise DataError(
                f"{paths[0]} and {len(paths) - 1} more tar file(s) hold no sample; "
                "expected KEY.jpg beside KEY.json or KEY.txt"
            )
        kinds = sorted({Path(e.text.name).suffix[1:] for e in self._entries if e.text is not None}) or [
            "no text"
        ]
        self.format = (
            f"tar shards ({len(paths)} file(s), {len(self)} keys, pictures with {' or '.join(kinds)})"
        )

    def __len__(self) -> int:
        return len(self._entries)

    def sample(self, index: int) -> Sample:
        """One key: its picture (unread) and its captions.

        Raises:
            BadSample: The text beside the picture is missing or cannot be understood.
        """
        entry = self._entries[index]
        origin = f"{entry.archive.path.name}:{entry.key}"
        if entry.picture is None:
            reason = (
                f"{origin} has no picture beside its text; expected {entry.key}.jpg, .png or another picture"
            )
            image: ImageRef = MissingImage(reason, name=origin)
        else:
            image = ShardImage(
                entry.archive, entry.picture, name=f"{entry.archive.path.name}:{entry.picture.name}"
            )
        return Sample(id=entry.key, origin=origin, images=(image,), captions=_captions(entry, origin))


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that glob patterns with braces name, sorted within each pattern, each once.

    Raises:
        DataError: A pattern names nothing, or braces give more than 100,000 paths.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        for alternative in _braces(pattern):
            path = Path(alternative)
            if path.is_file() or not re.search(r"[*?\[]", alternative):
                matches = [path] if path.is_file() else []
            else:
                base = Path(path.anchor) if path.is_absolute() else Path()
                matches = sorted(p for p in base.glob(str(path.relative_to(path.anchor))) if p.is_file())
            if not matches:
                raise DataError(
                    f"no file matches '{alternative}'; expected tar files, "
                    f"so check the path (it is relative to {Path.cwd()})"
                )
            found.update(dict.fromkeys(matches))
    if not found:
        raise DataError("no tar files are named; expected at least one path")
    return list(found)


def escaped(path: Path) -> str:
    """A path as a pattern that names it alone, whatever characters it holds: each special one in brackets."""
    return re.sub(r"[*?\[{}]", lambda special: f"[{special[0]}]", str(path))


def _braces(pattern: str) -> list[str]:
    match = re.search(r"(?<!\[)\{([^{}]*)\}(?!\])", pattern)
    if match is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span is None:
        choices = match[1].split(",")
    else:
        first, last = int(span[1]), int(span[2])
        if last - first >= MAX_SHARDS:
            raise DataError(f"'{pattern}' names more than {MAX_SHARDS:,} files; name fewer")
        choices = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
    return [
        path
        for choice in choices
        for path in _braces(pattern[: match.start()] + choice + pattern[match.end() :])
    ]


def _entries(archive: TarFile) -> list[_Entry]:
    pictures: dict[str, Member] = {}
    texts: dict[str, Member] = {}
    for member in archive.members:
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if not stem:
            continue
        key = f"{folder}/{stem}" if folder else stem
        group = pictures if extension.lower() in PICTURES else texts if extension.lower() in TEXTS else None
        if group is None:
            continue
        if key in group:
            raise DataError(
                f"{archive.path} holds both '{group[key].name}' and '{member.name}'; "
                "expected one picture and one text a key"
            )
        group[key] = member
    keys = dict.fromkeys([*pictures, *texts])
    return [_Entry(archive, key, pictures.get(key), texts.get(key)) for key in keys]


def _captions(entry: _Entry, origin: str) -> tuple[str, ...]:
    if entry.text is None:
        raise BadSample(
            f"{origin} has no text beside its picture; expected {entry.key}.json or {entry.key}.txt"
        )
    try:
        text = entry.archive.read(entry.text).decode()
        if entry.text.name.lower().endswith(".txt"):
            return (text.strip(),)
        record = loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample(
            f"{origin} has a text that is no valid UTF-8 or JSON; mend {entry.text.name}"
        ) from error
    found = record.get("captions", record.get("caption")) if isinstance(record, dict) else None
    captions = [found] if isinstance(found, str) else found
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) for c in captions):
        raise BadSample(
            f"{origin} has no captions in {entry.text.name}; expected 'captions': [strings] or 'caption': string"
        )
    return tuple(captions)
