"""Classifiers of a recipe: a vision encoder and one linear layer that names the class."""

from typing import Literal, Self

from pydantic import model_validator

from isthmus.config.base import Fraction, Mistake, ModelSettings, Names, refuse
from isthmus.config.vision import Vision


class Classifier(ModelSettings):
    """A vision encoder that learns which of some classes a picture shows."""

    kind: Literal["classifier"] = "classifier"
    vision: Vision
    """Image to tokens."""
    classes: Names
    """The names of the classes, as samples say them; at least two."""
    pooling: Literal["mean", "first"] = "mean"
    """The mean of the encoder's tokens, or the first of them (CLS, where `vision.features` is all or cls)."""
    dropout: Fraction = 0.0
    """Share of the pooled vector's entries dropped in training."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", "head")

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        mistakes = []
        for position, name in enumerate(self.classes):
            if name in self.classes[:position]:
                mistakes.append(
                    Mistake(path=("classes", position), found=f"'{name}' again", allowed="each class once")
                )
        if len(self.classes) < 2:
            mistakes.append(Mistake(path=("classes",), found="one class", allowed="at least two"))
        refuse(mistakes)
        return self
