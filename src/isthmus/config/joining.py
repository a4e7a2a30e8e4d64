"""What stands between picture and text: connectors and fusion."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from isthmus.config.base import Count, Fraction, Mistake, Settings, refuse
from isthmus.config.qformer import QFormer
from isthmus.config.resampling import Activation, Resampling


class LinearConnector(Settings):
    """One linear layer on every patch (LLaVA, Liu et al., 2023)."""

    kind: Literal["linear"] = "linear"


class MlpConnector(Settings):
    """An MLP on every patch (LLaVA-1.5, Liu et al., 2023)."""

    kind: Literal["mlp"] = "mlp"
    depth: Count = 2
    """Linear layers, with a GELU between each two."""
    hidden: Count | None = None
    """Entries between the layers; null: the language model's width."""
    pool: Count | None = None
    """Average a square grid of patches to this many tokens a side first; null: keep every patch."""
    norm: bool = False
    """Whether a layer norm stands in front; convolutional features need one."""
    positions: bool = False
    """Whether each visual token gets a learned position vector; convolutional features have none of their own."""
    dropout: Fraction = 0.0
    """Share of the feature entries dropped in training."""


class PixelShuffle(Settings):
    """Neighbouring patches joined into one visual token, then one linear layer, or an MLP (InternVL 1.5)."""

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: Count = 2
    """Patches a side that become one token; divides the grid's height and width."""
    hidden: Count | None = None
    """Entries between two linear layers behind a layer norm, as InternVL has them; null: one linear layer."""
    positions: bool = False
    """Whether a layer norm stands in front and each visual token gets a learned position vector."""
    dropout: Fraction = 0.0
    """Share of the joined feature entries dropped in training, behind a layer norm."""

    @property
    def has_norm(self) -> bool:
        """Whether a layer norm stands in front."""
        return self.hidden is not None or self.positions or self.dropout > 0


Connector = Annotated[
    LinearConnector | MlpConnector | PixelShuffle | Resampling | QFormer,
    Field(discriminator="kind"),
]
"""Visual tokens from patches."""


class Reuse(Settings):
    """A placeholder that borrows an id the tokenizer has already."""

    reuse: Annotated[int, Field(ge=0)]
    """The token id."""


Placeholder = Literal["virtual", "add"] | Reuse
"""How the places of visual tokens are written."""


class Splice(Settings):
    """Visual tokens take the places of placeholders in the text."""

    kind: Literal["splice"] = "splice"
    placeholder: Placeholder = "virtual"
    """`virtual`: an id that never reaches an embedding; `add`: a new row; `{reuse: ID}`: an existing id."""

    @field_validator("placeholder", mode="before")
    @classmethod
    def _check_placeholder(cls, value: Any) -> Any:
        number = value.get("reuse") if isinstance(value, dict) and set(value) == {"reuse"} else None
        known = isinstance(value, Reuse) or (isinstance(value, str) and value in ("virtual", "add"))
        if not known and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            words = ("virtual", "add")
            refuse([Mistake(path=(), found=repr(value), allowed="virtual, add, {reuse: ID}", choices=words)])
        return value


class CrossAttention(Settings):
    """Gated blocks inside the language model read the visual tokens (Flamingo, Alayrac et al., 2022, section 3.1.2)."""

    kind: Literal["cross_attention"] = "cross_attention"
    every: Count = 1
    """One block for each group of this many decoder layers."""
    placement: Literal["first", "last"] = "first"
    """Before the first layer of each group (Flamingo: from layer 0 on) or before the last (OpenFlamingo)."""
    heads: Count = 8
    """Attention heads."""
    head_dim: Count = 64
    """Entries of one head."""
    ffn_multiple: Count = 4
    """Width of the feed-forward layer as a multiple of the language model's."""
    activation: Activation = "gelu"
    """What stands inside the feed-forward: OpenFlamingo has gelu, Flamingo squared_relu."""
    width: Count | None = None
    """Entries of a visual token; null: as wide as the vision encoder's."""
    marker: Literal["trained", "none"] | None = None
    """`trained`: `<image>` and `<|endofchunk|>` get rows trained as the part `token_rows`; `none`: a row's one picture
    is seen by all its text; null: trained, or none where another path puts visual tokens into the text."""


Fusion = Annotated[Splice | CrossAttention, Field(discriminator="kind")]
"""Where visual tokens meet text."""


class Path(Settings):
    """One way from the vision encoder into the language model."""

    connector: Connector
    """Patches to visual tokens."""
    fusion: Fusion = Splice()
    """Where they meet the text."""
