"""Several scenes at once: series of one to four pictures in a row, and short clips of a thing that moves."""

from dataclasses import dataclass, replace

from isthmus.data.scenes.captions import captions
from isthmus.data.scenes.composition import moved
from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.questions import Question
from isthmus.data.scenes.scene import Point, Scene
from isthmus.data.scenes.vocabulary import DIRECTIONS, ORDINALS, Pair, with_article

MAX_PICTURES = len(ORDINALS)
FRAMES = (2, 16)
"""A clip has at least and at most this many frames."""


@dataclass(frozen=True, slots=True)
class Series:
    """Pictures to be read in a row: their scenes, a caption for each, and questions about which picture."""

    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """A short film: one scene a frame, evenly spaced in time; captions and questions about the motion."""

    frames: tuple[Scene, ...]
    captions: tuple[str, ...]
    questions: tuple[Question, ...]


def series_of(scenes: tuple[Scene, ...], subjects: tuple[Pair, ...]) -> Series:
    """Return a series of these scenes; asked is where each subject is that exactly one of them shows."""
    said = [
        f"the {ordinal} picture shows {captions(scene)[0]}"
        for ordinal, scene in zip(ORDINALS, scenes, strict=False)
    ]
    questions = []
    for pair in subjects:
        showing = [number for number, scene in enumerate(scenes) if scene.count(pair)]
        if len(showing) == 1:
            text = f"which picture shows {with_article(' '.join(pair))} ?"
            questions.append(Question(text, ORDINALS[showing[0]], "picture", pair))
    return Series(scenes, tuple(said), tuple(questions))


def clip_of(scene: Scene, num_frames: int) -> Clip:
    """Return a clip in which the scene's only thing crosses the canvas in a drawn direction."""
    dice = Dice("clip", scene.key)
    direction = dice.pick(DIRECTIONS)
    (thing,) = scene.things
    height, width = scene.canvas
    frames = []
    for number in range(num_frames):
        way = 0.27 + 0.46 * number / (num_frames - 1)
        along = way if direction in ("right", "down") else 1 - way
        centre = Point(along * width, thing.centre.y)
        if direction in ("up", "down"):
            centre = Point(thing.centre.x, along * height)
        frames.append(replace(scene, things=(moved(thing, centre),)))
    name = f"{thing.colour} {thing.shape}"
    said = (f"the {name} moves {direction} .", f"{with_article(f'{thing.size} {name}')} moves {direction} .")
    questions = (
        Question(f"which way does the {name} move ?", direction, "motion", thing.pair),
        Question("what colour is the moving thing ?", thing.colour, "colour", thing.pair),
        Question("what shape is the moving thing ?", thing.shape, "shape", thing.pair),
    )
    return Clip(tuple(frames), said, questions)
