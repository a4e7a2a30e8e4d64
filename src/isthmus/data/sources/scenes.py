"""The built-in world as a source: pictures are drawn only when somebody looks, captions and questions come along."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from isthmus.core.errors import UsageError
from isthmus.data.samples import ImagePart, ImageRef, Sample, Source, Turn
from isthmus.data.scenes import Question, Scene, Scenes
from isthmus.data.scenes.apart import Lack, Told
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.retelling import exchange, reordered, retold

QUESTIONS_A_TALK = 6
"""Questions about one scene in a conversation: the picture is looked at once for all of them."""

RETELLINGS = 3
"""How often a caption is told again in a text without questions."""

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
    """Scenes of one split: each sample has captions, a question with its answer and kind, and a talk of several.

    Args:
        split: `train`, `val` or `test`.
        num_samples: How many; sample `i` is scene `i` of the split.
        image_size: Height and width in pixels; the shorter side where they differ.
        aspect: The least and the greatest width over height.
        seed: Which world.
        colourless: Share of scenes in colours without a name, with texts that name no colour (see `Scenes.without`).
        shapeless: Share of scenes with coloured lumps for shapes, with texts that name no shape.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"],
        num_samples: int,
        image_size: int = 64,
        aspect: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
        colourless: float = 0.0,
        shapeless: float = 0.0,
    ) -> None:
        if num_samples < 1:
            raise UsageError(f"num_samples is {num_samples}; expected at least 1")
        self.world = Scenes(split=split, seed=seed, image_size=image_size, aspect=aspect)
        self.split = split
        self._num_samples = num_samples
        self._shares: tuple[tuple[Lack | None, float], ...] = (
            ("colour", colourless),
            ("shape", shapeless),
            (None, 1 - colourless - shapeless),
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
            turns=_talk((ImagePart(0),), told.questions),
        )

    def _told(self, scene: Scene, question: Question, *, imagined: bool) -> Told:
        """A scene as it is shown, with its captions and a few questions: the sample's own first, if it can be asked."""
        dice = Dice("talk", scene.key)
        lack = Dice("lack", scene.key).weighted(self._shares)
        if lack:
            told = self.world.without(scene, lack)
            return replace(told, questions=tuple(dice.shuffled(told.questions)[:QUESTIONS_A_TALK]))
        others = [one for one in self.world.questions(scene, imagined=imagined) if one.text != question.text]
        asked = (question, *dice.shuffled(others)[: QUESTIONS_A_TALK - 1])
        return Told(scene, tuple(self.world.captions(scene)), asked)

    def text_sample(self, index: int) -> Sample:
        """Text about scene `index` of an imagined world of training compositions; no picture belongs to it.

        Most colours and shapes are exchanged for others that are never drawn (see `scenes.retelling`).
        Two of three are a talk that begins with a full caption where a picture would stand; in the others such a
        caption is told again in other orders, where nearly every word has to be looked up.
        """
        name = f"{self.split}-{index}"
        scene, question = self.world.imagined(index)
        told = self._told(scene, question, imagined=True)
        words = exchange(scene.key)
        said = tuple(retold(caption, words) for caption in told.captions)
        if index % 3 == 2:
            dice = Dice("retellings", scene.key)
            again = " ".join(reordered(said[1], dice) for _ in range(RETELLINGS))
            return Sample(
                id=name, origin=f"text {name}", turns=(Turn("user", (said[1],)), Turn("assistant", (again,)))
            )
        asked = [
            replace(one, text=retold(one.text, words), answer=retold(one.answer, words))
            for one in told.questions
        ]
        return Sample(id=name, origin=f"text {name}", turns=_talk((f"{said[1]} ",), asked))


def _talk(about: tuple[ImagePart | str, ...], asked: Sequence[Question]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for number, question in enumerate(asked):
        turns.append(Turn("user", (*about, question.text) if number == 0 else (question.text,)))
        turns.append(Turn("assistant", (question.answer,)))
    return tuple(turns)
