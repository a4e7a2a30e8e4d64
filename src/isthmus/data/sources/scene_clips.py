"""Clips of the built-in world: one thing crosses the canvas, and what is asked is which way, and what it is."""

from typing import Literal

from isthmus.core.errors import UsageError
from isthmus.data.clips import ClipImage
from isthmus.data.samples import ImagePart, Sample, Source, Turn
from isthmus.data.scenes import Scenes
from isthmus.data.sources.scenes import SceneImage


class SceneClips(Source):
    """Clips of one split: each sample has captions, a question with its answer and kind, and a talk of all questions.

    Args:
        split: `train`, `val` or `test`; those of `val` and `test` show pairs of colour and shape that training never
            shows.
        num_samples: How many; sample `i` is clip `i` of the split and asks its question `i` of three.
        frames: Frames of each, 2 to 16.
        image_size: Height and width of a frame in pixels.
        seed: Which world.

    Raises:
        UsageError: There are no samples, or the number of frames is outside its range.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        num_samples: int,
        frames: int = 4,
        image_size: int = 64,
        seed: int = 0,
    ) -> None:
        if num_samples < 1:
            raise UsageError(f"num_samples is {num_samples}; expected at least 1")
        self.world = Scenes(split=split, seed=seed, image_size=image_size)
        self.split = split
        self.frames = frames
        self._num_samples = num_samples
        self.world.clip(0, frames)
        self.format = f"built-in clips of {frames} frames ({num_samples} of split {split}, seed {seed})"

    def __len__(self) -> int:
        return self._num_samples

    def sample(self, index: int) -> Sample:
        """Clip `index`, undrawn."""
        clip, name = self.world.clip(index, self.frames), f"{self.split}-clip-{index}"
        frames = tuple(
            SceneImage(self.world, scene, name=f"frame {number} of {name}")
            for number, scene in enumerate(clip.frames)
        )
        asked = clip.questions[index % len(clip.questions)]
        turns: list[Turn] = []
        for one in clip.questions:
            turns.append(Turn("user", (one.text,) if turns else (ImagePart(0), one.text)))
            turns.append(Turn("assistant", (one.answer,)))
        return Sample(
            id=name,
            origin=f"clip {name}",
            images=(ClipImage(frames, name=f"clip {name}"),),
            captions=clip.captions,
            question=asked.text,
            answers=(asked.answer,),
            kind=asked.kind,
            turns=tuple(turns),
        )
