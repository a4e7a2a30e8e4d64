"""The vision encoder of a recipe: pretrained, or a ViT of our own."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Fraction, Mistake, Positive, Settings, refuse, undivided

Features = Literal["patches", "all", "cls", "pooled", "projected"]
"""Which outputs are used: the grid, grid and prefix tokens, the summary token, or one pooled vector."""

Resize = Literal["none", "squash", "crop", "pad"]
"""How a picture gets the encoder's size: must fit already, stretch, cut the middle out, or add a border."""


Activation = Literal["gelu", "quick_gelu", "tanh_gelu"]
"""Exact GELU, OpenAI's x * sigmoid(1.702 x), or SigLIP's tanh approximation."""


class PretrainedVision(Settings):
    """A Hugging Face vision model from a folder or by its hub name."""

    kind: Literal["pretrained"] = "pretrained"
    name: str
    """A folder (`${shared}/models/…`) or a hub name."""
    revision: str | None = None
    """The commit of a hub model; null: the newest."""
    layer: int | None = None
    """Whose output is used: 0 the embeddings, k what leaves layer k, -1 the last layer, -2 the one before; nothing
    behind it is built. null: the last layer, and the model is built whole, with heads that nothing reads."""
    features: Features = "patches"
    """Which outputs are used."""
    joined: Annotated[tuple[int, ...], Field(strict=False)] = ()
    """Layers of a convolutional network (0 the first) whose outputs are joined to the last one's, averaged over the
    pixels of each grid position."""
    mirrored: bool = False
    """Whether the mirrored picture's patches follow the picture's own."""
    enlarged: Count | None = None
    """Side in pixels to which the picture is enlarged for more patches, which follow the others; null: it is not."""
    final_norm: bool = True
    """Whether the model's own last normalisation is applied to them; false at every layer but the last."""
    alpha: bool = False
    """Whether a fourth channel, at first without effect, marks the region that is meant (Alpha-CLIP); part `alpha`."""
    resize: Resize | None = None
    """How pictures get the right size; null: as the model's preprocessor file says."""

    @property
    def has_views(self) -> bool:
        """Whether further views of a picture add patches behind its own, which are a grid no more."""
        return self.mirrored or self.enlarged is not None

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        if self.features != "patches" and self.has_views:
            allowed = "patches, because mirrored and enlarged views add patches and nothing else"
            refuse([Mistake(path=("features",), found=f"'{self.features}'", allowed=allowed)])
        return self


class VitVision(Settings):
    """A vision transformer of our own (Dosovitskiy et al., 2021)."""

    kind: Literal["vit"] = "vit"
    image_size: Count
    """Height and width of the input in pixels."""
    patch: Count
    """Height and width of a patch in pixels; divides `image_size`."""
    width: Count
    """Entries of a token vector; a multiple of `heads`."""
    layers: Count
    """Transformer blocks."""
    heads: Count
    """Attention heads."""
    ffn: Count | None = None
    """Width of the feed-forward; null: four times `width`."""
    activation: Activation = "gelu"
    """What stands inside the feed-forward."""
    norm_eps: Positive = 1.0e-6
    """Epsilon of the layer norms; 1e-5 in CLIP."""
    cls: Literal["plain", "placed", "none"] = "plain"
    """The summary token: without a position, with one of its own (CLIP), or left out (SigLIP)."""
    positions: Literal["learned", "sincos", "stored_sincos", "none"] = "learned"
    """Learned vectors, fixed sines and cosines of column and row (FLIP), which MAE's files store and count, or none."""
    relative: bool = False
    """Whether attention scores depend on how far two patches lie apart, by one table for all blocks (BEiT)."""
    mask_token: bool = False
    """Whether hidden patches have a learned vector in their place, for a masked image model of codes (BEiT)."""
    key_bias: bool = True
    """Whether keys have biases, as queries and values do; BEiT's have none."""
    layer_scale: Positive | None = None
    """What each block's updates are multiplied by at first, by learned numbers; 0.1 in BEiT; null: they are not."""
    drop_path: Fraction = 0.0
    """Share of pictures that the last block does not update in training (stochastic depth, Huang et al., 2016); it
    rises evenly from 0 in the first block; 0.1 in BEiT."""
    last_norm: Literal["layer", "rms"] = "layer"
    """The normalisation behind the last block: a layer norm, or RMSNorm (Zhang and Sennrich, 2019)."""
    pre_norm: bool = False
    """Whether a layer norm stands before the first block (CLIP)."""
    patch_bias: bool = True
    """Whether the map from pixels to tokens has a bias; CLIP's has none."""
    alpha: bool = False
    """Whether a fourth channel, at first without effect, marks the region that is meant (Alpha-CLIP); part `alpha`."""
    mean: Annotated[tuple[float, float, float], Field(strict=False)] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel in [0, 1]; also the colour of a blank picture."""
    std: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)] = (0.5, 0.5, 0.5)
    """What each channel is divided by then."""
    stem: Literal["linear", "convolutional"] = "linear"
    """How pixels become tokens: one linear map a patch, or small strided convolutions (Xiao et al., 2021)."""
    weights: str | None = None
    """`shipped:NAME`, a folder that a run wrote, or null: random."""
    layer: int | None = None
    """Whose output is used: 0 the embeddings, k what leaves block k, -1 the last block, -2 the one before; nothing
    behind it is built. null: the last block."""
    features: Literal["patches", "all", "cls"] = "patches"
    """Which outputs are used."""
    final_norm: bool = True
    """Whether the last normalisation is built and applied to them; false at every layer but the last."""
    resize: Resize = "squash"
    """How pictures get the right size."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        mistakes = [
            *undivided(("patch",), self.patch, whole="image_size", total=self.image_size),
            *undivided(("heads",), self.heads, whole="width", total=self.width),
        ]
        if self.features == "cls" and self.cls == "none":
            mistakes.append(
                Mistake(path=("features",), found="'cls'", allowed="patches, because cls is none")
            )
        if self.stem == "convolutional" and (self.alpha or not self.patch_bias):
            allowed = "linear, because a convolutional stem has biases and reads three channels"
            mistakes.append(Mistake(path=("stem",), found="'convolutional'", allowed=allowed))
        if self.positions in ("sincos", "stored_sincos") and self.width % 4:
            allowed = "a multiple of 4, because positions are sines and cosines of two coordinates"
            mistakes.append(Mistake(path=("width",), found=str(self.width), allowed=allowed))
        if self.layer is not None and not -self.layers - 1 <= self.layer <= self.layers:
            allowed = f"a layer from {-self.layers - 1} to {self.layers}, or null"
            mistakes.append(Mistake(path=("layer",), found=str(self.layer), allowed=allowed))
        elif self.layer not in (None, -1, self.layers) and self.final_norm:
            allowed = f"false, because the normalisation belongs to the last layer and layer is {self.layer}"
            mistakes.append(Mistake(path=("final_norm",), found="true", allowed=allowed))
        refuse(mistakes)
        return self


Vision = Annotated[PretrainedVision | VitVision, Field(discriminator="kind")]
"""The vision encoder."""
