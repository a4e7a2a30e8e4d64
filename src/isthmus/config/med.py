"""BLIP's mixture of encoder and decoder (MED) in a recipe (Li et al., 2022)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Fraction, Mistake, ModelSettings, Settings, refuse, undivided
from isthmus.config.dual import TextTokenizer
from isthmus.config.vision import Vision, VitVision


class MedText(Settings):
    """The text transformer: BERT's layers with cross-attention to the picture in each."""

    tokenizer: TextTokenizer
    """How text becomes ids; two more ids begin captions that are written and texts that are matched, BLIP's `[DEC]` and
    `[ENC]`."""
    context: Count = 30
    """Longest text in tokens."""
    positions: Count = 512
    """Rows of the table of positions; at least `context`."""
    width: Count = 768
    """Entries of a word; a multiple of `heads`."""
    layers: Count = 12
    """Layers of self-attention, cross-attention and feed-forward."""
    heads: Count = 12
    """Attention heads."""
    ffn: Count = 3072
    """Width of the feed-forward layers."""
    dropout: Fraction = 0.1
    """Share dropped in training, of attention weights and after each layer."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        mistakes = undivided(("heads",), self.heads, whole="width", total=self.width)
        if self.positions < self.context:
            allowed = f"a number from context = {self.context} on"
            mistakes.append(Mistake(path=("positions",), found=str(self.positions), allowed=allowed))
        refuse(mistakes)
        return self


class Momentum(Settings):
    """Slow copies of both encoders and queues of what they gave, for the objective `contrastive` (section 3.2)."""

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.995
    """Share of the copies that stays at each step."""
    queue: Count = 57600
    """Pictures, and texts, that are remembered."""
    soft: Fraction = 0.4
    """Share of each target that follows what the copies find alike."""
    ramp_fraction: Fraction = 0.1
    """Share of the stage in which `soft` rises from 0: two epochs of twenty, as published."""


class Med(ModelSettings):
    """A text transformer that reads alone, reads beside a picture, and writes about one (section 3.1)."""

    kind: Literal["med"] = "med"
    vision: Vision
    """Image to patches."""
    text: MedText
    """The words: part `text`, with self-attention apart in `encoder` and `decoder`."""
    vision_norm: Literal["token", "channel", "none"] = "none"
    """What stands between a picture's tokens and cross-attention: a layer norm on each token, zero mean and unit spread
    of each channel over the pictures, which a convolutional encoder wants, or none, because the encoder has its own."""
    pool: Literal["first", "mean"] = "first"
    """Which vector of a picture is compared with texts: its first token's, which is CLS where `vision.features` is
    `all`, or the mean over all tokens."""
    embed_dim: Count = 256
    """Entries of the vectors that are compared."""
    temperature: Annotated[float, Field(ge=0.001, le=0.5)] = 0.07
    """What similarities are divided by at the start; learned in the part `heads`, within 0.001 and 0.5."""
    momentum: Momentum | None = None
    """Slow copies and queues for contrast; null: pictures and texts of a batch are compared with each other."""
    bert: str | None = None
    """A Hugging Face BERT (folder or hub name) of the same sizes that words and layers start from; null: random."""
    weights: str | None = None
    """A Hugging Face BLIP (folder or hub name), or a `.safetensors` file with the keys of BLIP's own code; what it does
    not hold stays as it is; null: each part from its own."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", "text", "encoder", "decoder", "heads")

    @model_validator(mode="after")
    def _check_pool(self) -> Self:
        has_cls = self.vision.features in ("all", "cls", "pooled", "projected")
        if isinstance(self.vision, VitVision) and self.vision.cls == "none":
            has_cls = False
        if self.pool == "first" and not has_cls:
            allowed = "mean, because without CLS a picture's first token is its top left corner"
            refuse([Mistake(path=("pool",), found="'first'", allowed=allowed)])
        return self
