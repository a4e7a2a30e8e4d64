"""The built-in world as a source: pictures are drawn only when somebody looks, captions and questions come along."""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from isthmus.core.errors import UsageError
from isthmus.data.samples import ImageRef, Sample, Source
from isthmus.data.scenes import Scene, Scenes

DRAWING = "drawing 1"
"""Changes whenever the same scene would be drawn in other pixels; part of a picture's name in the feature store."""


@dataclass(frozen=True)
class SceneImage(ImageRef):
    """A drawn scene; no file and no coding between the drawing and the processor."""

    world: Scenes
    scene: Scene

    def read(self) -> bytes:
        """The picture as a PNG file."""
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()

    def digest(self) -> str:
        """The SHA-256 of everything the drawing depends on, which names the picture without drawing it."""
        return hashlib.sha256(f"{DRAWING} {self.scene!r}".encode()).hexdigest()

    def picture(self) -> Image.Image:
        """The drawing."""
        return self.world.picture(self.scene)


class SceneSource(Source):
    """Scenes of one split: each sample has captions, and one question with its answer and kind.

    Args:
        split: `train`, `val` or `test`.
        num_samples: How many; sample `i` is scene `i` of the split.
        image_size: Height and width in pixels.
        seed: Which world.
    """

    def __init__(
        self, *, split: Literal["train", "val", "test"], num_samples: int, image_size: int = 64, seed: int = 0
    ) -> None:
        if num_samples < 1:
            raise UsageError(f"num_samples is {num_samples}; expected at least 1")
        self.world = Scenes(split=split, seed=seed, image_size=image_size)
        self.split = split
        self._num_samples = num_samples
        self.format = (
            f"built-in scenes ({num_samples} of split {split}, {image_size}x{image_size}, seed {seed})"
        )

    def __len__(self) -> int:
        return self._num_samples

    def sample(self, index: int) -> Sample:
        """Scene `index`, undrawn."""
        scene, question = self.world.example(index)
        name = f"{self.split}-{index}"
        return Sample(
            id=name,
            origin=f"scene {name}",
            images=(SceneImage(self.world, scene, name=f"scene {name}"),),
            captions=tuple(self.world.captions(scene)),
            question=question.text,
            answers=(question.answer,),
            kind=question.kind,
        )

    def text_sample(self, index: int) -> Sample:
        """Plain texts about scene `index` of an imagined world of training compositions; no picture belongs to them."""
        name = f"{self.split}-{index}"
        return Sample(id=name, origin=f"text {name}", texts=tuple(self.world.sentences(index)))
