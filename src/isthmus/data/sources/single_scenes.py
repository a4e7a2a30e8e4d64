"""Drawn scenes of one thing each, which is what classes are named from."""

from typing import Literal

from isthmus.core.errors import UsageError
from isthmus.data.samples import Sample, Source
from isthmus.data.scenes import Scenes
from isthmus.data.sources.scenes import SceneImage, regions_of


class SingleScenes(Source):
    """Scenes of one thing; its shape or its colour is the sample's class.

    Args:
        split: `train`, `val` or `test`: whose pairs of colour and shape are shown. Those of `val` and `test` never come
            up in training, so naming one of their attributes is naming it in a new composition.
        num_samples: How many.
        image_size: The shorter side in pixels.
        aspect: The least and the greatest width over height.
        seed: Which world.
        label: Which of the thing's words is the class.

    Raises:
        UsageError: There are no samples.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        num_samples: int,
        image_size: int = 64,
        aspect: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
        label: Literal["colour", "shape"],
    ) -> None:
        if num_samples < 1:
            raise UsageError(f"num_samples is {num_samples}; expected at least 1")
        self.world = Scenes(split=split, seed=seed, image_size=image_size, aspect=aspect)
        self.split = split
        self.label: Literal["colour", "shape"] = label
        self._num_samples = num_samples
        self.format = (
            f"built-in scenes of one thing ({num_samples} of split {split}, classes: {label}, seed {seed})"
        )

    def __len__(self) -> int:
        return self._num_samples

    def sample(self, index: int) -> Sample:
        """Scene `index`, undrawn."""
        scene, name = self.world.single(index), f"{self.split}-single-{index}"
        (thing,) = scene.things
        return Sample(
            id=name,
            origin=f"scene {name}",
            images=(SceneImage(self.world, scene, name=f"scene {name}"),),
            captions=tuple(self.world.captions(scene)),
            regions=regions_of(self.world, scene),
            label=thing.shape if self.label == "shape" else thing.colour,
        )
