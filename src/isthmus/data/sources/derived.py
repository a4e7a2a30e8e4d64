"""Sources made of other sources: with captions exchanged as a seed decides, or with captions that were curated."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

from isthmus.core.errors import DataError
from isthmus.core.randomness import seed_of
from isthmus.data.samples import Sample, Source

_RESOLUTION = 2**32


@final
class Exchanged(Source):
    """Each caption is exchanged, as likely as `share` says, for one of another sample.

    Nothing in a sample says which ones were; `exchanged` does, for those who judge.

    Args:
        source: The samples.
        share: Probability in [0, 1].
        seed: Which captions, and what stands in their place.

    Raises:
        DataError: There are fewer than two samples.
    """

    def __init__(self, source: Source, *, share: float, seed: int) -> None:
        if len(source) < 2:
            raise DataError(
                f"captions of {len(source)} sample(s) cannot be exchanged; expected at least 2 samples"
            )
        self._source = source
        self._share = share
        self._seed = seed
        self.format = f"{source.format}, captions exchanged with probability {share:g}"

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int) -> Sample:
        """The sample, with some captions of others.

        Raises:
            BadSample: Its own record, or that of a sample whose caption it gets, is damaged.
        """
        sample = self._source.sample(index)
        captions = [
            self._other(index, place) if is_exchanged else caption
            for place, (caption, is_exchanged) in enumerate(
                zip(sample.captions, self.exchanged(index), strict=True)
            )
        ]
        return replace(sample, captions=tuple(captions))

    def exchanged(self, index: int) -> tuple[bool, ...]:
        """Which of a sample's captions are those of others."""
        return tuple(
            seed_of(self._seed, "is exchanged", index, place) % _RESOLUTION < self._share * _RESOLUTION
            for place in range(self._source.num_captions(index))
        )

    def _other(self, index: int, place: int) -> str:
        """A caption of any other sample."""
        drawn = seed_of(self._seed, "exchanged for", index, place)
        other = (index + 1 + drawn % (len(self) - 1)) % len(self)
        captions = self._source.sample(other).captions
        return captions[(drawn // len(self)) % len(captions)]


@dataclass(frozen=True)
class _Row:
    """One line of the file: which sample, and what is said of it."""

    index: int
    id: str
    captions: tuple[str, ...]


@final
class Recaptioned(Source):
    """Samples with the captions of a file that `isthmus curate capfilt` wrote.

    Args:
        source: The samples.
        file: JSON lines with `index`, `id`, `web` and `synthetic`.
        origin: Which captions are read.

    Raises:
        DataError: The file is missing or damaged, is of another source, or leaves no caption.
    """

    def __init__(
        self, source: Source, file: Path, *, origin: Literal["all", "web", "synthetic"] = "all"
    ) -> None:
        self._source = source
        self._file = file
        origins = ("web", "synthetic") if origin == "all" else (origin,)
        rows = (row for row in _rows(file, origins) if row.captions)
        self._kept = list(rows)
        self.format = f"{source.format}, captions of {file.name}"
        if not self._kept:
            raise DataError(f"{file} keeps no caption ({origin}); expected at least one, so keep more")
        if self._kept[-1].index >= len(source):
            raise DataError(
                f"{file} speaks of sample {self._kept[-1].index}, but its source has {len(source)}; give the source "
                "that the captions were made for"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def sample(self, index: int) -> Sample:
        """The sample with its kept captions.

        Raises:
            DataError: It is another one than the captions were made for.
        """
        row = self._kept[index]
        sample = self._source.sample(row.index)
        if sample.id != row.id:
            raise DataError(
                f"{self._file} says that sample {row.index} is {row.id}, but it is {sample.id}; give the source that "
                "the captions were made for"
            )
        return replace(sample, captions=row.captions)

    def num_captions(self, index: int) -> int:
        """How many captions were kept."""
        return len(self._kept[index].captions)


def _rows(file: Path, origins: tuple[str, ...]) -> list[_Row]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read; expected the captions that `isthmus curate capfilt` wrote"
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            said = json.loads(line)
            captions = [str(caption) for origin in origins for caption in said[origin]]
            rows.append(_Row(int(said["index"]), str(said["id"]), tuple(captions)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number} is no object with index, id, web and synthetic; write the file again with "
                "`isthmus curate capfilt`"
            ) from error
    return rows
