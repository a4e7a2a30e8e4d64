"""Masked image models of a recipe: a vision encoder that sees a part of a picture, and what predicts the rest."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Mistake, ModelSettings, Positive, Settings, refuse, undivided
from isthmus.config.vision import Resize, VitVision


class RandomMasking(Settings):
    """Patches drawn one by one, anew for each picture and epoch (MAE)."""

    kind: Literal["random"] = "random"
    masked: float = Field(default=0.75, gt=0.0, lt=1.0)
    """Share of the patches that the encoder does not see."""


class BlockwiseMasking(Settings):
    """Blocks of patches, drawn until about as many are hidden as asked for (BEiT)."""

    kind: Literal["blockwise"] = "blockwise"
    patches: Count = 75
    """Most patches that are hidden; sometimes it stops a few earlier."""
    least_block: Count = 16
    """Fewest patches of a block."""


class CodePredictor(Settings):
    """One linear layer that names the code of every hidden patch (Bao et al., 2022, section 2.3)."""

    kind: Literal["codes"] = "codes"


class SmallCodes(Settings):
    """A discrete VAE of a few convolutions, which learns from the data at hand."""

    kind: Literal["dvae"] = "dvae"
    vocabulary: Count = 8192
    """How many codes there are."""
    patch: Count
    """Pixels a code stands for, each way; a power of two."""
    width: Count = 64
    """Entries of the vectors inside it, and of a code's own vector."""


class DallECodes(Settings):
    """DALL-E's discrete VAE, the one that BEiT was trained with (Ramesh et al., 2021)."""

    kind: Literal["dall_e"] = "dall_e"
    vocabulary: Count = 8192
    """How many codes there are."""
    patch: Annotated[int, Field(ge=8, multiple_of=8)] = 16
    """Pixels of the picture a code stands for, each way; above 8 the tokenizer sees the picture smaller."""
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 256
    """Channels of its first group of blocks."""
    code_width: Count = 128
    """Entries of a code's own vector."""
    blocks: Count = 2
    """Residual blocks of each of its four groups."""
    weights: str | None = None
    """A folder with `encoder.safetensors` and `decoder.safetensors` under OpenAI's names; null: random."""


Codes = Annotated[SmallCodes | DallECodes, Field(discriminator="kind")]
"""A visual tokenizer: it writes a picture as a grid of codes and reads it back."""


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


Predictor = Annotated[PixelPredictor | CodePredictor, Field(discriminator="kind")]
"""What predicts hidden patches."""

Masking = Annotated[RandomMasking | BlockwiseMasking, Field(discriminator="kind")]
"""How patches are chosen that are hidden."""


class VisualTokenizer(ModelSettings):
    """A visual tokenizer on its own, trained to give pictures back from their codes."""

    kind: Literal["visual_tokenizer"] = "visual_tokenizer"
    image_size: Count
    """Height and width of the input in pixels; `tokenizer.patch` divides it."""
    mean: Annotated[tuple[float, float, float], Field(strict=False)] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel in [0, 1]."""
    std: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)] = (0.5, 0.5, 0.5)
    """What each channel is divided by then."""
    resize: Resize = "squash"
    """How pictures get the right size."""
    tokenizer: Codes
    """Its codes."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        refuse(
            undivided(("tokenizer", "patch"), self.tokenizer.patch, whole="image_size", total=self.image_size)
        )
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("tokenizer",)


class MaskedImageModel(ModelSettings):
    """A vision encoder that learns by what it cannot see; only `vision` is used afterwards."""

    kind: Literal["masked_image_model"] = "masked_image_model"
    vision: VitVision
    """The encoder; its `features` are `all`, and its last norm is built."""
    predictor: Predictor = PixelPredictor()
    """What predicts the hidden patches."""
    masking: Masking = RandomMasking()
    """Which patches are hidden."""
    tokenizer: Codes | None = None
    """The visual tokenizer whose codes are predicted, for a predictor of codes: a part of its own, which a stage takes
    over from a model of kind `visual_tokenizer` and leaves frozen."""
    weights: str | None = None
    """A published MAE or BEiT that both parts start from: a Hugging Face folder or hub name, or for MAE a
    `.safetensors` file with the official keys; null: random."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", "predictor", *(("tokenizer",) if self.tokenizer is not None else ()))

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
        mistakes += self._pixels() if isinstance(self.predictor, PixelPredictor) else self._codes()
        refuse(mistakes)
        return self

    def _pixels(self) -> Iterator[Mistake]:
        assert isinstance(self.predictor, PixelPredictor)
        if self.predictor.width % self.predictor.heads or self.predictor.width % 4:
            allowed = f"a multiple of 4 and of heads = {self.predictor.heads}"
            yield Mistake(path=("predictor", "width"), found=str(self.predictor.width), allowed=allowed)
        if not isinstance(self.masking, RandomMasking):
            allowed = "random, because a predictor of pixels needs as many seen patches of every picture"
            yield Mistake(path=("masking", "kind"), found="'blockwise'", allowed=allowed)
            return
        patches = (self.vision.image_size // self.vision.patch) ** 2
        if int(patches * (1 - self.masking.masked)) < 1:
            allowed = f"at most {1 - 1 / patches:.3f}, so that one of {patches} patches is seen"
            yield Mistake(path=("masking", "masked"), found=f"{self.masking.masked:g}", allowed=allowed)
        if self.tokenizer is not None:
            allowed = "null, because a predictor of pixels needs no codes"
            yield Mistake(path=("tokenizer",), found="a tokenizer", allowed=allowed)

    def _codes(self) -> Iterator[Mistake]:
        if not self.vision.mask_token:
            allowed = "true, because hidden patches need something in their place"
            yield Mistake(path=("vision", "mask_token"), found="false", allowed=allowed)
        if not isinstance(self.masking, BlockwiseMasking):
            allowed = "blockwise, because a predictor of codes keeps every patch's place"
            yield Mistake(path=("masking", "kind"), found=f"'{self.masking.kind}'", allowed=allowed)
        else:
            yield from self._blocks(self.masking)
        if self.tokenizer is None:
            yield Mistake(
                path=("tokenizer",), found="null", allowed="the visual tokenizer whose codes are predicted"
            )
        elif self.tokenizer.patch != self.vision.patch:
            allowed = f"{self.vision.patch}, as in vision, so that every patch has one code"
            yield Mistake(path=("tokenizer", "patch"), found=str(self.tokenizer.patch), allowed=allowed)

    def _blocks(self, masking: BlockwiseMasking) -> Iterator[Mistake]:
        side = self.vision.image_size // self.vision.patch
        if masking.patches >= side**2:
            allowed = f"fewer than all {side**2} patches"
            yield Mistake(path=("masking", "patches"), found=str(masking.patches), allowed=allowed)
        most = min(masking.patches, (side - 1) ** 2)
        if masking.least_block > most:
            allowed = f"at most {most}, so that a block fits into {side} x {side} patches and is hidden whole"
            yield Mistake(path=("masking", "least_block"), found=str(masking.least_block), allowed=allowed)
