"""The built-in world as a source: pictures are drawn only when somebody looks, captions and questions come along."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool
from PIL import Image

from isthmus.core.errors import UsageError
from isthmus.data.marked import Mask, Region
from isthmus.data.samples import ImagePart, ImageRef, Phrase, Sample, Source, Turn
from isthmus.data.scenes import Question, Scene, Scenes
from isthmus.data.scenes.apart import Lack, Told
from isthmus.data.scenes.captions import phrases, region_caption
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.questions import described
from isthmus.data.scenes.retelling import exchange, retold

QUESTIONS_A_TALK, QUESTIONS_A_TEXT = 6, 9
"""Most questions about one picture, which is looked at once for all of them, and about one scene in words."""

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


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How scenes for training differ from those that are judged; each a share of the scenes or words, in [0, 1].

    Attributes:
        colourless: Scenes in free colours, with texts that name none (see `Scenes.without`).
        shapeless: Scenes with coloured lumps for shapes, with texts that name none.
        exchanged: Colours and shapes of texts without pictures that are words never drawn.
        counting: Scenes made for a question of how many, beside those that the mix of questions asks for.
    """

    colourless: float = 0.0
    shapeless: float = 0.0
    exchanged: float = 0.0
    counting: float = 0.0


@dataclass(frozen=True)
class SceneMask(Mask):
    """The pixels that show one thing of a scene."""

    world: Scenes
    scene: Scene
    number: int

    def read(self) -> Bool[np.ndarray, "height width"]:
        """Drawn now; what hides the thing does not belong to it."""
        return self.world.region_masks(self.scene)[self.number]


def regions_of(world: Scenes, scene: Scene) -> tuple[Region, ...]:
    """Each thing of a scene with what is said of it alone."""
    return tuple(
        Region(region_caption(thing), SceneMask(world, scene, number))
        for number, thing in enumerate(scene.things)
    )


class SceneSource(Source):
    """Scenes of one split: each sample has captions, a question with its answer and kind, and a talk of several.

    Args:
        split: `train`, `val` or `test`.
        num_samples: How many; sample `i` is scene `i` of the split.
        image_size: Height and width in pixels; the shorter side where they differ.
        aspect: The least and the greatest width over height.
        seed: Which world.
        variation: How they differ from scenes that are judged.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        num_samples: int,
        image_size: int = 64,
        aspect: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
        variation: Variation = Variation(),
    ) -> None:
        if num_samples < 1:
            raise UsageError(f"num_samples is {num_samples}; expected at least 1")
        self.world = Scenes(
            split=split, seed=seed, image_size=image_size, aspect=aspect, counting=variation.counting
        )
        self.split = split
        self._num_samples = num_samples
        self._exchanged = variation.exchanged
        self._shares: tuple[tuple[Lack | None, float], ...] = (
            ("colour", variation.colourless),
            ("shape", variation.shapeless),
            (None, 1 - variation.colourless - variation.shapeless),
        )
        size = f"{image_size}x{image_size}" if aspect == (1.0, 1.0) else f"shorter side {image_size}"
        self.format = f"built-in scenes ({num_samples} of split {split}, {size}, seed {seed})"

    def __len__(self) -> int:
        return self._num_samples

    def sample(self, index: int) -> Sample:
        """Scene `index`, undrawn."""
        scene, question = self.world.example(index)
        name = f"{self.split}-{index}"
        told = self._told(scene, question, imagined=False)
        first = told.questions[0]
        return Sample(
            id=name,
            origin=f"scene {name}",
            images=(SceneImage(self.world, told.scene, name=f"scene {name}"),),
            captions=told.captions,
            question=first.text,
            answers=(first.answer,),
            kind=first.kind,
            turns=_talk((ImagePart(0),), (first, *self._talked(told)[: QUESTIONS_A_TALK - 1])),
            regions=regions_of(self.world, told.scene) if told.lack is None else (),
        )

    def _told(self, scene: Scene, question: Question, *, imagined: bool) -> Told:
        """A scene as it is shown, with its captions and questions: the sample's own first, if it can be asked."""
        dice = Dice("talk", scene.key)
        lack = Dice("lack", scene.key).weighted(self._shares)
        if lack:
            told = self.world.without(scene, lack)
            return replace(told, questions=tuple(dice.shuffled(told.questions)))
        others = [one for one in self.world.questions(scene, imagined=imagined) if one.text != question.text]
        asked = (question, *dice.shuffled(others))
        return Told(scene, None, tuple(self.world.captions(scene)), asked, tuple(phrases(scene)))

    def _talked(self, told: Told) -> list[Question]:
        """The other questions in a drawn order; in half of training's whole scenes what each thing is, among them."""
        dice = Dice("talked", told.scene.key)
        whole = self.split == "train" and told.lack is None and dice.chance(0.5)
        return dice.shuffled([*(described(told.scene) if whole else []), *told.questions[1:]])

    def text_sample(self, index: int) -> Sample:
        """Text about scene `index` of an imagined world of training compositions; no picture belongs to it.

        Where a picture would stand, each thing is a phrase that enters as one vector (`samples.Phrase`). One of six
        texts goes on with a caption, the others are talks. A share of colours and shapes is exchanged for words that
        are never drawn (see `scenes.retelling`).
        """
        name = f"{self.split}-{index}"
        scene, question = self.world.imagined(index)
        told = self._told(scene, question, imagined=True)
        words = exchange(scene.key, self._exchanged)
        shown = tuple(Phrase(retold(phrase, words)) for phrase in told.phrases)
        if index % 6 == 5:
            caption = retold(Dice("caption", scene.key).pick(told.captions), words)
            turns = (Turn("user", shown), Turn("assistant", (caption,)))
            return Sample(id=name, origin=f"text {name}", turns=turns)
        asked = (told.questions[0], *self._talked(told))[:QUESTIONS_A_TEXT]
        retalked = [
            replace(one, text=retold(one.text, words), answer=retold(one.answer, words)) for one in asked
        ]
        return Sample(id=name, origin=f"text {name}", turns=_talk(shown, retalked))


def _talk(about: tuple[ImagePart | Phrase, ...], asked: Sequence[Question]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for number, question in enumerate(asked):
        turns.append(Turn("user", (*about, question.text) if number == 0 else (question.text,)))
        turns.append(Turn("assistant", (question.answer,)))
    return tuple(turns)
