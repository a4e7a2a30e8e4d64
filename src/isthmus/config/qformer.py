"""The Q-Former of a recipe: as a connector, and as the model that its first stage trains (BLIP-2, Li et al., 2023)."""

from typing import Literal, Self

from pydantic import model_validator

from isthmus.config.base import Count, Fraction, Mistake, ModelSettings, Positive, Settings, refuse, undivided
from isthmus.config.dual import TextTokenizer
from isthmus.config.vision import Vision


class QFormer(Settings):
    """Learned queries that read the patches and each other, in BERT's shape (BLIP-2, Li et al., 2023, section 3.1)."""

    kind: Literal["qformer"] = "qformer"
    queries: Count = 32
    """Queries, which is the number of visual tokens of a picture."""
    width: Count = 768
    """Entries of a query; a multiple of `heads`."""
    layers: Count = 12
    """Layers of self-attention and feed-forward."""
    heads: Count = 12
    """Attention heads."""
    ffn: Count = 3072
    """Width of the feed-forward layers."""
    cross_every: Count = 2
    """Queries read the patches in layers 0, this, twice this, and so on."""
    dropout: Fraction = 0.1
    """Share dropped in training, of attention weights and after each layer."""
    norm_eps: Positive = 1.0e-5
    """Epsilon of the norm on the patches: 1e-5 as published, 1e-6 in transformers' checkpoints."""
    bert: str | None = None
    """A Hugging Face BERT (folder or hub name) of the same sizes that layers and words start from; null: random."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        refuse(undivided(("heads",), self.heads, whole="width", total=self.width))
        return self


class QFormerText(Settings):
    """The words that a Q-Former learns beside pictures."""

    tokenizer: TextTokenizer
    """How text becomes ids; one more id begins the captions that are written, BLIP-2's `[DEC]`."""
    context: Count = 32
    """Longest text in tokens."""
    positions: Count = 512
    """Rows of the table of positions; at least `context`."""

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        if self.positions < self.context:
            allowed = f"a number from context = {self.context} on"
            refuse([Mistake(path=("positions",), found=str(self.positions), allowed=allowed)])
        return self


class QFormerPretrainer(ModelSettings):
    """A Q-Former that learns what in a picture has to do with text, before it meets a language model (section 3.2)."""

    kind: Literal["qformer_pretrainer"] = "qformer_pretrainer"
    vision: Vision
    """Image to patches."""
    connector: QFormer = QFormer()
    """The Q-Former, with what words need: `connector.text`."""
    text: QFormerText
    """The words."""
    embed_dim: Count = 256
    """Entries of the vectors that are compared."""
    temperature: Positive = 0.07
    """What similarities are divided by at the start; learned in the part `heads`."""
    weights: str | None = None
    """A Hugging Face `Blip2ForImageTextRetrieval` (folder or hub name), or a `.safetensors` file with LAVIS' keys;
    null: each part from its own."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a stage can train or freeze."""
        return ("vision", "connector", "heads")
