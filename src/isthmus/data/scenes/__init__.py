"""The built-in world of drawn scenes: pictures, captions, questions, boxes and masks, without end."""

from isthmus.data.scenes.blind import blind_accuracy
from isthmus.data.scenes.questions import Question
from isthmus.data.scenes.scene import Box, Point, Scene, Thing
from isthmus.data.scenes.sequences import Clip, Series
from isthmus.data.scenes.vocabulary import (
    KINDS,
    TEST_PAIRS,
    TRAINING_PAIRS,
    VALIDATION_PAIRS,
    Pair,
    read_words,
    words,
)
from isthmus.data.scenes.world import Scenes

__all__ = [
    "KINDS",
    "TEST_PAIRS",
    "TRAINING_PAIRS",
    "VALIDATION_PAIRS",
    "Box",
    "Clip",
    "Pair",
    "Point",
    "Question",
    "Scene",
    "Scenes",
    "Series",
    "Thing",
    "blind_accuracy",
    "read_words",
    "words",
]
