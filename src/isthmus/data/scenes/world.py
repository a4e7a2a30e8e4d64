"""The built-in world: every scene, picture, text and question as a pure function of split, seed and index."""

import math
from typing import final

import numpy as np
from PIL import Image

from isthmus.core.errors import UsageError
from isthmus.core.sizes import Size
from isthmus.data.scenes import captions, draw, questions, sequences
from isthmus.data.scenes.apart import LACKS, Lack, Told, without
from isthmus.data.scenes.apart import captions as without_words
from isthmus.data.scenes.composition import MAX_THINGS, Order, compose
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.goals import Goal, count_goal, goal, resembling
from isthmus.data.scenes.questions import Question
from isthmus.data.scenes.scene import Box, Scene
from isthmus.data.scenes.vocabulary import KINDS, NUMBERS, SUBJECTS, TRAINING_PAIRS, Pair

SMALLEST_SIDE, LARGEST_SIDE = 16, 2048
ASPECT_LIMITS = (1 / 3, 3.0)
FEWEST_THINGS = {"train": 1, "val": 2, "test": 2}
"""Scenes with a single thing are so few that the picture most similar to one of them mostly has the same answer."""


@final
class Scenes:
    """An endless world of drawn scenes; equal arguments and index give equal scenes in every process.

    Validation and test scenes show at least one pair of colour and shape held out for their split, and every
    question is about such a pair; training shows and names none of them. Training shows one to four things, the other
    splits two to four.

    Args:
        split: `train`, `val` or `test`.
        seed: Another seed is another world of the same kind.
        image_size: The shorter side of a picture in pixels.
        aspect: The least and the greatest width over height, within 1/3 and 3; drawn evenly on a log scale.
        overlap: The share of two neighbours' reach that may coincide, in [0, 0.4].
        counting: The share of scenes made for a question of how many, beside those that `goals.MIX` asks for.

    Raises:
        UsageError: If an argument is outside its range.
    """

    def __init__(
        self,
        *,
        split: str = "train",
        seed: int = 0,
        image_size: int = 64,
        aspect: tuple[float, float] = (1.0, 1.0),
        overlap: float = 0.2,
        counting: float = 0.0,
    ) -> None:
        _check_options(split, image_size, aspect, overlap)
        self.split = split
        self.seed = seed
        self.image_size = image_size
        self.aspect = aspect
        self.overlap = overlap
        self.counting = counting
        self.subjects: tuple[Pair, ...] = SUBJECTS[split]

    def scene(self, index: int) -> Scene:
        """Return the scene with this index.

        Raises:
            UsageError: If the index is negative.
        """
        return self.example(index)[0]

    def example(self, index: int) -> tuple[Scene, Question]:
        """Return the scene with this index and one question about it, of the kinds in `goals.MIX`.

        Raises:
            UsageError: If the index is negative.
        """
        return self._example("scene", index, self.subjects)

    def picture(self, scene: Scene) -> Image.Image:
        """Return the scene as an anti-aliased RGB picture."""
        return draw.picture(scene)

    def captions(self, scene: Scene) -> list[str]:
        """Return true captions; the first is complete: size, colour, shape and place of every thing.

        One names no colours and one no shapes, so that neither is learned only as far as the other leaves it open.
        """
        partial = [without_words(scene, lack)[2] for lack in LACKS]
        return [*captions.captions(scene), *partial]

    def without(self, scene: Scene, lack: Lack) -> Told:
        """Return the scene in free colours (`colour`) or with lumps for shapes (`shape`), with texts to match."""
        return without(scene, lack)

    def questions(self, scene: Scene, *, imagined: bool = False) -> list[Question]:
        """Return the questions about a scene's subjects, each with exactly one true answer.

        Subjects are the split's own pairs, or in an imagined scene those of training.

        Scenes with a single copy of a pair are by far the most frequent, so most of their counts are left
        out, to keep `one` from being a good guess.
        """
        dice = Dice("questions", scene.key)
        asked = []
        for kind in KINDS:
            found = questions.of_kind(scene, kind, TRAINING_PAIRS if imagined else self.subjects)
            if kind == "count":
                found = [question for question in found if question.answer != NUMBERS[0] or dice.chance(0.04)]
            asked += found
        return asked

    def boxes(self, scene: Scene) -> list[Box]:
        """Return the box around each thing in pixels, hidden parts too, in the order of `scene.things`."""
        return [thing.box for thing in scene.things]

    def region_masks(self, scene: Scene) -> np.ndarray:
        """Return the pixels that show each thing of `scene.things`: bool `[thing, height, width]`."""
        return draw.region_masks(scene)

    def single(self, index: int) -> Scene:
        """Return a scene that shows one thing, of one of the split's own pairs.

        Raises:
            UsageError: If the index is negative.
        """
        _check_index(index)
        dice = Dice("single", self.seed, self.split, index)
        return compose(dice, self._alone(dice, dice.pick(self.subjects), 1))

    def imagined(self, index: int) -> tuple[Scene, Question]:
        """Return an undrawn scene of training compositions, whatever the split, and a question about it.

        Raises:
            UsageError: If the index is negative.
        """
        return self._example("imagined", index, TRAINING_PAIRS)

    def series(self, index: int, num_pictures: int | None = None) -> sequences.Series:
        """Return one to four pictures in a row; None draws how many.

        A single picture is asked about as any scene is.

        Raises:
            UsageError: If the index is negative or the number of pictures is not 1 to 4.
        """
        _check_index(index)
        dice = Dice("series", self.seed, self.split, index)
        number = dice.pick(range(1, sequences.MAX_PICTURES + 1)) if num_pictures is None else num_pictures
        if not 1 <= number <= sequences.MAX_PICTURES:
            raise UsageError(
                f"A series has 1 to {sequences.MAX_PICTURES} pictures, not {number}: ask for 1, 2, 3 or 4."
            )
        order = dice.shuffled(self.subjects)[:number]
        scenes = tuple(
            compose(dice, self._alone(dice, pair, dice.pick(range(1, MAX_THINGS + 1)))) for pair in order
        )
        if number == 1:
            return sequences.Series(
                scenes, (captions.captions(scenes[0])[0],), tuple(self.questions(scenes[0]))
            )
        return sequences.series_of(scenes, self.subjects)

    def clip(self, index: int, num_frames: int = 4) -> sequences.Clip:
        """Return a clip of one thing that crosses the picture.

        Raises:
            UsageError: If the index is negative or the number of frames is not 2 to 16.
        """
        _check_index(index)
        low, high = sequences.FRAMES
        if not low <= num_frames <= high:
            raise UsageError(
                f"A clip has {low} to {high} frames, not {num_frames}: ask for a number in that range."
            )
        dice = Dice("clip", self.seed, self.split, index)
        return sequences.clip_of(compose(dice, self._alone(dice, dice.pick(self.subjects), 1)), num_frames)

    def _example(self, purpose: str, index: int, subjects: tuple[Pair, ...]) -> tuple[Scene, Question]:
        """Draw scenes for the goal of an index until its question has the answer it is meant to have."""
        _check_index(index)
        purpose = f"{purpose} {self.split}"
        counts = Dice("counting", purpose, self.seed, index).chance(self.counting)
        aim = (count_goal if counts else goal)(self.seed, purpose, index, subjects)
        dice = Dice(purpose, self.seed, index)
        while True:
            scene = compose(dice, self._order(dice, aim, subjects))
            question = questions.matching(scene, aim)
            if question:
                return scene, question

    def _order(self, dice: Dice, aim: Goal, subjects: tuple[Pair, ...]) -> Order:
        """Return what a scene has to hold for a goal; every total number of things it allows is as likely."""
        subject = resembling(dice, aim.about, subjects) if aim.answer == "no" else aim.about
        neighbour = (aim.answer, aim.relation) if aim.relation else None
        fewest = max(aim.copies + bool(neighbour), FEWEST_THINGS[self.split])
        num_things = dice.pick(range(fewest, MAX_THINGS + 1))
        canvas = self._canvas(dice)
        fixed = (aim.place, aim.size, neighbour)
        return Order(subject, aim.copies, num_things, TRAINING_PAIRS, canvas, self.overlap, *fixed)

    def _alone(self, dice: Dice, subject: Pair, num_things: int) -> Order:
        """Return a scene with one thing of the subject."""
        return Order(subject, 1, num_things, TRAINING_PAIRS, self._canvas(dice), self.overlap)

    def _canvas(self, dice: Dice) -> Size:
        """Return a canvas whose shorter side is the image size and whose aspect is drawn from the range."""
        low, high = self.aspect
        aspect = math.exp(dice.between(math.log(low), math.log(high)))
        short = self.image_size
        return Size(round(short / min(1.0, aspect)), round(short * max(1.0, aspect)))


def _check_index(index: int) -> None:
    """Refuse an index below zero."""
    if index < 0:
        raise UsageError(
            f"Scenes are numbered from 0 on, and there is none with the index {index}: pass 0 or more."
        )


def _check_options(split: str, image_size: int, aspect: tuple[float, float], overlap: float) -> None:
    """Refuse options outside their range, each in one sentence."""
    if split not in SUBJECTS:
        raise UsageError(f"The world has no split {split!r}: choose one of {', '.join(SUBJECTS)}.")
    if not SMALLEST_SIDE <= image_size <= LARGEST_SIDE:
        limits = f"{SMALLEST_SIDE} to {LARGEST_SIDE} pixels"
        raise UsageError(
            f"A drawn scene of {image_size} pixels a side is not possible: choose an image size of {limits}."
        )
    low, high = aspect
    if not ASPECT_LIMITS[0] - 1e-9 <= low <= high <= ASPECT_LIMITS[1] + 1e-9:
        found = f"{low:g} to {high:g}"
        raise UsageError(
            f"The aspect range (width over height) is {found}: choose low <= high, both within 1/3 and 3."
        )
    if not 0 <= overlap <= 0.4:
        raise UsageError(
            f"The overlap is {overlap:g}: choose a share from 0 to 0.4, so that hidden things stay visible."
        )
