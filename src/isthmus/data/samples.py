"""What a source gives: samples, lazily, with pictures that are read only when somebody looks at them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

from PIL import Image

from isthmus.data.marked import Region
from isthmus.data.pictures import MAX_BYTES, BadSample, decode, digest

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class ImageRef(ABC):
    """Where a picture is; nothing is read until asked for.

    Attributes:
        name: What messages call it, for example `train.tar:dog.jpg`.
    """

    name: str

    @abstractmethod
    def read(self) -> bytes:
        """The picture file's bytes.

        Raises:
            BadSample: There is no such file, or it is too large.
        """

    def digest(self) -> str:
        """The picture's name in the feature store: the SHA-256 of its bytes."""
        return digest(self.read())

    def picture(self) -> Image.Image:
        """The decoded picture in RGB.

        Raises:
            BadSample: The file is missing, damaged or too large.
        """
        return decode(self.read(), self.name)


@dataclass(frozen=True)
class FileImage(ImageRef):
    """A picture in a file of its own."""

    path: Path

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            BadSample: The file cannot be read or is larger than 64 MiB.
        """
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise BadSample(
                    f"{self.name} is larger than {MAX_BYTES:,} bytes, the most that is read; make it smaller"
                )
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise BadSample(f"{self.name} does not exist; restore the picture or remove its row") from error
        except OSError as error:
            raise BadSample(
                f"{self.name} cannot be read ({error.strerror}); check the file and its permissions"
            ) from error


@dataclass(frozen=True)
class BytesImage(ImageRef):
    """A picture that is already in memory, for example one a caller handed over."""

    data: bytes

    def read(self) -> bytes:
        """The bytes as they were given."""
        return self.data


@dataclass(frozen=True)
class MissingImage(ImageRef):
    """A picture that a row needs and that is not there; reading it says so."""

    reason: str

    def read(self) -> bytes:
        """Never returns.

        Raises:
            BadSample: Always.
        """
        raise BadSample(self.reason)


@dataclass(frozen=True)
class ImagePart:
    """The place of a picture in a turn.

    Attributes:
        index: Which of the sample's images stands here, counted from 0.
    """

    index: int


@dataclass(frozen=True)
class Phrase:
    """Words that a language model alone reads as one vector: the sum of their embeddings over the root of their number.

    So it learns, before it ever sees, to look up what goes with what among vectors that each tell of one region, which
    is how a connector will hand it a picture.
    """

    words: str


@dataclass(frozen=True)
class Turn:
    """What one side says: text, pictures and phrases in reading order. Text is never searched for markers."""

    role: Role
    parts: tuple[str | ImagePart | Phrase, ...]

    @property
    def text(self) -> str:
        """The turn's text without its pictures and phrases."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item of a data set.

    Attributes:
        id: Unique in its source.
        origin: File and row, for messages.
        images: The pictures, in reading order.
        captions: Sentences that describe the first picture.
        turns: A conversation about the pictures.
        question: What is asked about the pictures.
        answers: Accepted answers; the first is the one to learn.
        kind: Kind of question, for tables by kind.
        texts: Plain texts that need no picture, for a language model alone.
        regions: Parts of the first picture, each with its own caption.
        label: The class of the first picture.
    """

    id: str
    origin: str
    images: tuple[ImageRef, ...] = ()
    captions: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    question: str | None = None
    answers: tuple[str, ...] = ()
    kind: str = ""
    texts: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    label: str = ""


class Source(Sequence[Sample], ABC):
    """Samples by index, made when asked for.

    Attributes:
        format: What the source found, in words, for example `tar shards (8 files, KEY.jpg + KEY.json)`.
    """

    format: str

    @abstractmethod
    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Source": ...
    def __getitem__(self, index: int | slice) -> "Sample | Source":
        """One sample, or a view on several.

        Raises:
            BadSample: The sample's own record is damaged.
        """
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        return self.sample(range(len(self))[index])

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample at `index`, which lies within the source.

        Raises:
            BadSample: The sample's own record is damaged.
        """

    def text_sample(self, index: int) -> Sample:
        """The sample as rows of text read it; a source may have texts of its own for them.

        Raises:
            BadSample: The sample's own record is damaged.
        """
        return self.sample(index)

    def num_captions(self, index: int) -> int:
        """How many captions a sample has."""
        return len(self.sample(index).captions)

    def has_pictures(self, index: int) -> bool:
        """Whether a sample has pictures; a source that knows without making the sample says so faster.

        Raises:
            BadSample: The sample's own record is damaged.
        """
        return bool(self.sample(index).images)


class Subset(Source):
    """Some samples of a source, in a given order."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = indices
        self.format = source.format

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Sample:
        """The sample that stands at this place.

        Raises:
            BadSample: The sample's own record is damaged.
        """
        return self.source.sample(self.indices[index])

    def text_sample(self, index: int) -> Sample:
        """The sample that stands at this place, as rows of text read it.

        Raises:
            BadSample: The sample's own record is damaged.
        """
        return self.source.text_sample(self.indices[index])

    def num_captions(self, index: int) -> int:
        """How many captions a sample has."""
        return self.source.num_captions(self.indices[index])

    def has_pictures(self, index: int) -> bool:
        """Whether the sample that stands at this place has pictures."""
        return self.source.has_pictures(self.indices[index])


class MemorySource(Source):
    """Samples held in memory, for tests, notebooks and small sets."""

    def __init__(self, samples: Sequence[Sample], format: str = "samples in memory") -> None:
        self.samples = tuple(samples)
        self.format = format

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        """The sample at `index`."""
        return self.samples[index]
