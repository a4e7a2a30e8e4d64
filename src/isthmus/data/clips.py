"""Short films as one medium: several frames that a row shows at one place."""

from dataclasses import dataclass

from PIL import Image

from isthmus.data.pictures import digest
from isthmus.data.samples import ImageRef


@dataclass(frozen=True)
class ClipImage(ImageRef):
    """A clip, which stands in a row where a picture would; only models with places for frames take it."""

    frames: tuple[ImageRef, ...]

    def read(self) -> bytes:
        """What names it: its frames in their order.

        Raises:
            BadSample: A frame cannot be read.
        """
        return " ".join(["clip", *(frame.digest() for frame in self.frames)]).encode()

    def digest(self) -> str:
        """The SHA-256 of its frames' names.

        Raises:
            BadSample: A frame cannot be read.
        """
        return digest(self.read())

    def picture(self) -> Image.Image:
        """All frames side by side, for people to look at; models get them one by one.

        Raises:
            BadSample: A frame cannot be read.
        """
        frames = [frame.picture() for frame in self.frames]
        strip = Image.new("RGB", (sum(one.width for one in frames), max(one.height for one in frames)))
        left = 0
        for frame in frames:
            strip.paste(frame, (left, 0))
            left += frame.width
        return strip
