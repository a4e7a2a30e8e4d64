"""The same questions with other pictures: another row's, or a blank one in the mean colour."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from PIL import Image

from isthmus.data.images import ImageProcessor
from isthmus.data.samples import ImageRef, Sample, Source


@dataclass(frozen=True, kw_only=True)
class MemoryImage(ImageRef):
    """A picture that is decoded already."""

    image: Image.Image

    def read(self) -> bytes:
        """The picture's own numbers, which name it."""
        return f"{self.image.mode} {self.image.size}".encode() + self.image.tobytes()

    def picture(self) -> Image.Image:
        """The picture as it was given."""
        return self.image


@dataclass(frozen=True, kw_only=True)
class BlankedImage(ImageRef):
    """A picture of one colour, as large as another picture."""

    like: ImageRef
    colour: tuple[int, int, int]

    def read(self) -> bytes:
        """What names it: the colour, and the picture it is as large as.

        Raises:
            BadSample: That picture cannot be read.
        """
        return f"blank {self.colour} {self.like.digest()}".encode()

    def picture(self) -> Image.Image:
        """One colour throughout.

        Raises:
            BadSample: The picture it is as large as cannot be read.
        """
        return Image.new("RGB", self.like.picture().size, self.colour)


@final
class BlankPictures(Source):
    """A source whose pictures are all the mean colour of the processor, so that they become zeros.

    Args:
        source: The samples.
        images: Whose size and mean colour a blank has.
        keep_sizes: Each blank is as large as the picture it stands for. Where pictures are cut into tiles, their size
            decides how many visual tokens they take, and a blank must not take others.
    """

    def __init__(self, source: Source, images: ImageProcessor, *, keep_sizes: bool = False) -> None:
        size = (images.size.width, images.size.height)
        self._source = source
        self._colour = images.mean_colour
        self._keep_sizes = keep_sizes
        self._blank = MemoryImage(name="a blank picture", image=Image.new("RGB", size, images.mean_colour))
        self.format = f"{source.format}, blank pictures"

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int) -> Sample:
        """The sample with every picture blank."""
        sample = self._source.sample(index)
        if not self._keep_sizes:
            return replace(sample, images=(self._blank,) * len(sample.images))
        blanks = (
            BlankedImage(name=f"a blank for {image.name}", like=image, colour=self._colour)
            for image in sample.images
        )
        return replace(sample, images=tuple(blanks))


@final
class ExchangedPictures(Source):
    """A source whose sample `i` shows the pictures of sample `donors[i]`."""

    def __init__(self, source: Source, donors: Sequence[int]) -> None:
        self._source = source
        self._donors = donors
        self.format = f"{source.format}, exchanged pictures"

    def __len__(self) -> int:
        return len(self._donors)

    def sample(self, index: int) -> Sample:
        """The sample with another one's pictures."""
        sample = self._source.sample(index)
        given = self._source.sample(int(self._donors[index])).images
        return replace(sample, images=tuple(given[at % len(given)] for at in range(len(sample.images))))


def picture_ids(source: Source, limit: int) -> list[str]:
    """The hash of each sample's first picture; equal hashes are the same picture."""
    return [source.sample(index).images[0].digest() for index in range(limit)]
