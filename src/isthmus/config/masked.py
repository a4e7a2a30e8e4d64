"""Masked image models of a recipe: a vision encoder that sees a part of a picture, and what predicts the rest."""

from typing import Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Mistake, Positive, Settings, refuse
from isthmus.config.vision import VitVision


class RandomMasking(Settings):
    """Patches drawn one by one, anew for each picture and epoch (MAE)."""

    kind: Literal["random"] = "random"
    masked: float = Field(default=0.75, gt=0.0, lt=1.0)
    """Share of the patches that the encoder does not see."""


class PixelPredictor(Settings):
    """Transformer blocks behind the encoder that give back the pixels of every patch (He et al., 2022, section 3)."""

    kind: Literal["pixels"] = "pixels"
    width: Count = 512
    """Entries of its token vectors; a multiple of `heads` and of 4."""
    layers: Count = 8
    """Transformer blocks."""
    heads: Count = 16
    """Attention heads."""
    norm_eps: Positive = 1.0e-6
    """Epsilon of the layer norms."""
    normalised: bool = True
    """Whether each patch is predicted relative to its own mean and spread, so that contrast counts and not light."""


class MaskedImageModel(Settings):
    """A vision encoder that learns by what it cannot see; only `vision` is used afterwards."""

    kind: Literal["masked_image_model"] = "masked_image_model"
    vision: VitVision
    """The encoder; its `features` are `all`, and its last norm is built."""
    predictor: PixelPredictor = PixelPredictor()
    """What predicts the hidden patches."""
    masking: RandomMasking = RandomMasking()
    """Which patches are hidden."""
    weights: str | None = None
    """A published MAE that both parts start from: a Hugging Face folder or hub name, or a `.safetensors` file with the
    official keys; null: random."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", "predictor")

    @property
    def inner_parts(self) -> dict[str, str]:
        """Nothing is named inside its parts."""
        return {}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        mistakes = []
        if self.vision.features != "all":
            allowed = "all, because the predictor reads CLS and patches"
            mistakes.append(
                Mistake(path=("vision", "features"), found=f"'{self.vision.features}'", allowed=allowed)
            )
        if self.vision.cls == "none":
            allowed = "plain or placed, because the predictor reads CLS and patches"
            mistakes.append(Mistake(path=("vision", "cls"), found="'none'", allowed=allowed))
        if not self.vision.final_norm or self.vision.layer is not None:
            allowed = "null, and final_norm: true, because the whole encoder learns"
            mistakes.append(Mistake(path=("vision", "layer"), found=str(self.vision.layer), allowed=allowed))
        if self.predictor.width % self.predictor.heads or self.predictor.width % 4:
            allowed = f"a multiple of 4 and of heads = {self.predictor.heads}"
            mistakes.append(
                Mistake(path=("predictor", "width"), found=str(self.predictor.width), allowed=allowed)
            )
        patches = (self.vision.image_size // self.vision.patch) ** 2
        if int(patches * (1 - self.masking.masked)) < 1:
            allowed = f"at most {1 - 1 / patches:.3f}, so that one of {patches} patches is seen"
            mistakes.append(
                Mistake(path=("masking", "masked"), found=f"{self.masking.masked:g}", allowed=allowed)
            )
        refuse(mistakes)
        return self
