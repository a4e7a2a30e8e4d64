"""Dual encoders of a recipe: a vision encoder with its image head, a text encoder, and what compares them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Fraction, Mistake, ModelSettings, Positive, Settings, refuse, undivided
from isthmus.config.language import TrainedTokenizer
from isthmus.config.vision import Activation, Vision, VitVision


class ImageHead(Settings):
    """From patches to the one vector that is compared with texts: norm, pooling over positions, projection."""

    pooling: Literal["mean", "first", "attention", "mean_attention", "map"] = "mean"
    """The mean, the first token, a learned query (Zhai et al., 2022, section 3.1), mean and query side by side, or
    SigLIP's whole head, which needs a vision encoder of kind vit and has neither norm, dropout nor projection."""
    heads: Count = 8
    """Heads of the learned query."""
    norm: Literal["token", "channel", "none"] = "token"
    """A layer norm on each token, zero mean and unit spread of each channel over the pictures, or none, because the
    encoder's last norm stands in front."""
    projection: bool = True
    """Whether one linear layer leads to `embed_dim`; false: the pooled vector itself is compared (LiT)."""
    channel_dropout: Fraction = 0.0
    """Share of feature channels dropped in training."""
    patch_dropout: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Average share of positions not looked at in training; each picture loses between none and twice that."""
    dropout: Fraction = 0.0
    """Share of the vector's entries dropped in training."""


class PretrainedTokenizer(Settings):
    """A published tokenizer; its number of ids is written out, so that a recipe is counted without it."""

    kind: Literal["pretrained"] = "pretrained"
    name: str
    """A folder (`${shared}/models/…`) or a hub name."""
    revision: str | None = None
    """The commit of a hub model; null: the newest."""
    vocabulary: Count
    """How many ids the text encoder has rows for."""


TextTokenizer = Annotated[TrainedTokenizer | PretrainedTokenizer, Field(discriminator="kind")]
"""How text becomes ids."""


class TransformerText(Settings):
    """A text encoder of our own, random at the start unless the model's `weights` fill it."""

    kind: Literal["transformer"] = "transformer"
    tokenizer: TextTokenizer
    """How text becomes ids."""
    width: Count
    """Entries of a token vector; a multiple of `heads`."""
    layers: Annotated[int, Field(ge=0)]
    """Transformer blocks; 0 makes a bag of words."""
    heads: Count
    """Attention heads."""
    ffn: Count | None = None
    """Width of the feed-forward; null: four times `width`."""
    context: Count
    """Longest text in tokens."""
    pool: Literal["end", "mean", "first", "last"] = "end"
    """Which vector stands for the text: the end token's, which sees what comes before (CLIP), the mean over tokens, the
    first token's, or the last place's of a text filled up to the whole context (SigLIP, LiT)."""
    activation: Activation = "gelu"
    """What stands inside the feed-forward."""
    norm_eps: Positive = 1.0e-6
    """Epsilon of the layer norms."""
    head_bias: bool = False
    """Whether the projection to `embed_dim` has a bias (SigLIP's and LiT's have)."""
    dropout: Fraction = 0.0
    """Share of activations dropped in training."""
    rarity: bool = False
    """Whether words start with weights that grow as they get rarer, and these weights are learned (for pool: mean)."""
    word_dropout: Fraction = 0.0
    """Share of tokens hidden in training, never all of a text."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        refuse(undivided(("heads",), self.heads, whole="width", total=self.width))
        return self


class PretrainedText(Settings):
    """A Hugging Face BERT with its own tokenizer, and a projection behind it (LiT; Zhai et al., 2022).

    Its pooling layer, which was made to tell whether two sentences follow each other, is not built; dropout is what the
    checkpoint says.
    """

    kind: Literal["pretrained"] = "pretrained"
    name: str
    """A folder (`${shared}/models/…`) or a hub name; the tokenizer lies beside the weights."""
    revision: str | None = None
    """The commit of a hub model; null: the newest."""
    context: Count
    """Longest text in tokens; at most as many as the checkpoint has positions."""
    pool: Literal["first", "mean"] = "first"
    """Which vector stands for the text: that of `[CLS]`, the first token, or the mean over all tokens."""
    head_bias: bool = False
    """Whether the projection to `embed_dim` has a bias (LiT's has)."""


Text = Annotated[TransformerText | PretrainedText, Field(discriminator="kind")]
"""The text encoder."""


class DualEncoder(ModelSettings):
    """An image encoder and a text encoder that meet in one space (CLIP, Radford et al., 2021)."""

    kind: Literal["dual_encoder"] = "dual_encoder"
    vision: Vision
    """Image to patches."""
    image_head: ImageHead
    """Patches to one vector."""
    text: Text
    """Text to one vector."""
    embed_dim: Count
    """Entries of the vectors that are compared."""
    scale_init: Annotated[float, Field(ge=1.0, le=100.0)] = 14.285714285714286
    """What similarities are multiplied by at the start; 1 / 0.07 as in CLIP; learned as the part `scale`,
    within these bounds."""
    bias_init: float | None = None
    """What is added to scaled similarities at the start, for the objective `sigmoid` (-10 in SigLIP); learned in the
    part `scale`; null: nothing is added."""
    members: Count = 1
    """Image heads and text encoders that learn side by side, each from its own random start, on the same encoder; their
    similarities are averaged (deep ensemble, Lakshminarayanan et al., 2017)."""
    weights: str | None = None
    """A published CLIP, SigLIP or LiT that all parts start from: a Hugging Face folder or hub name, a `.safetensors`
    file with OpenAI's and open_clip's keys, or a big_vision `.npz`; null: random."""

    @property
    def marks_regions(self) -> bool:
        """Whether each picture comes with an alpha channel."""
        return self.vision.alpha

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", *(("alpha",) if self.marks_regions else ()), "image_head", "text", "scale")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        mistakes = []
        vit = self.vision if isinstance(self.vision, VitVision) else None
        if self.image_head.pooling == "map" and vit is None:
            allowed = "another pooling, because map is built with the sizes of a vision encoder of kind vit"
            mistakes.append(Mistake(path=("image_head", "pooling"), found="'map'", allowed=allowed))
        has_projection = self.image_head.projection and self.image_head.pooling != "map"
        if vit is not None and not has_projection and self.embed_dim != vit.width:
            allowed = f"{vit.width}, the vision encoder's width, because image_head has no projection"
            mistakes.append(Mistake(path=("embed_dim",), found=str(self.embed_dim), allowed=allowed))
        if not self.image_head.projection and self.image_head.pooling in ("attention", "mean_attention"):
            allowed = "true, because attention gives several vectors that only a projection makes one"
            mistakes.append(Mistake(path=("image_head", "projection"), found="false", allowed=allowed))
        if self.weights is not None and vit is None:
            allowed = "null, because these weights fill a vision encoder of kind vit; a pretrained one brings its own"
            mistakes.append(Mistake(path=("weights",), found=f"'{self.weights}'", allowed=allowed))
        if self.weights is not None and self.members > 1:
            allowed = "1, because published weights fill one image head and one text encoder"
            mistakes.append(Mistake(path=("members",), found=str(self.members), allowed=allowed))
        if self.weights is not None and isinstance(self.text, PretrainedText):
            allowed = (
                "null, because these weights fill a text encoder of kind transformer; a BERT has its own"
            )
            mistakes.append(Mistake(path=("weights",), found=f"'{self.weights}'", allowed=allowed))
        refuse(mistakes)
        return self
