"""The language side of a recipe: tokenizers, language models, LoRA."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.config.base import Count, Fraction, Mistake, Names, Settings, refuse, undivided


class TrainedTokenizer(Settings):
    """A tokenizer made from the texts of one source, when the run starts."""

    kind: Literal["trained"] = "trained"
    data: str
    """The source whose texts are counted; only a training source keeps the comparison honest."""
    vocabulary: Count
    """Most tokens it may have, special ones included."""
    algorithm: Literal["bpe", "word"] = "bpe"
    """Byte-pair encoding, or whole words."""
    lower: bool = True
    """Whether texts are lowercased first."""


class Lora(Settings):
    """Low-rank updates of the language model's matrices (Hu et al., 2021)."""

    rank: Count = 16
    """Rank of each update."""
    alpha: Count = 32
    """The update is scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Share of the update's inputs that is dropped in training."""
    targets: Names = ("q_proj", "v_proj")
    """Names of the linear layers that get an update, or ends of their paths."""
    weights: str | None = None
    """A folder in PEFT's layout that the update starts from; it must say the same numbers; null: no change at first."""


class LlamaLanguage(Settings):
    """A small LLaMA of our own, random at the start (Touvron et al., 2023)."""

    kind: Literal["llama"] = "llama"
    tokenizer: TrainedTokenizer
    """How text becomes ids."""
    width: Count
    """Entries of a token vector; a multiple of `heads`."""
    layers: Count
    """Decoder layers."""
    heads: Count
    """Attention heads."""
    kv_heads: Count | None = None
    """Heads of keys and values; divides `heads`; null: as many as `heads`."""
    ffn: Count
    """Width of the feed-forward layer."""
    context: Count
    """Longest sequence in tokens, visual tokens included."""
    dropout: Fraction = 0.0
    """Share of activations dropped in training."""
    template: str = "plain"
    """Name of the chat template."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        mistakes = undivided(("heads",), self.heads, whole="width", total=self.width)
        if not mistakes and (self.width // self.heads) % 2:
            allowed = "heads with an even number of entries each (rotary positions turn pairs)"
            found = f"{self.heads} heads of {self.width // self.heads} entries"
            mistakes.append(Mistake(path=("heads",), found=found, allowed=allowed))
        if self.kv_heads is not None:
            mistakes += undivided(("kv_heads",), self.kv_heads, whole="heads", total=self.heads)
        refuse(mistakes)
        return self


class PretrainedLanguage(Settings):
    """A Hugging Face causal language model with its own tokenizer."""

    kind: Literal["pretrained"] = "pretrained"
    name: str
    """`shipped:NAME`, a folder (`${shared}/models/…`), or a hub name."""
    revision: str | None = None
    """The commit of a hub model; null: the newest."""
    template: str = "plain"
    """Name of the chat template."""
    context: Count | None = None
    """Longest sequence in tokens, visual tokens included; null: what the model allows."""
    lora: Lora | None = None
    """Low-rank updates, trained as the part `lora`; null: none."""
    quantize: Literal["nf4"] | None = None
    """Hold the frozen weights in 4 bits (QLoRA, Dettmers et al., 2023); needs `isthmus[qlora]`; null: as they are."""


class EncoderDecoderLanguage(Settings):
    """A Hugging Face encoder-decoder (T5): pictures and prompts go to its encoder, and its decoder writes."""

    kind: Literal["encoder_decoder"] = "encoder_decoder"
    name: str
    """A folder (`${shared}/models/…`) or a hub name."""
    revision: str | None = None
    """The commit of a hub model; null: the newest."""
    template: str = "plain"
    """Name of the chat template, for what the encoder reads; the decoder's side is words and end token alone."""
    context: Count
    """Longest sequence of either side in tokens, visual tokens included."""
    prefix: bool = True
    """Whether captions are split at a drawn place: the words before it go to the encoder (prefix language modelling,
    Raffel et al., 2020); false: all words are written."""


Language = Annotated[LlamaLanguage | PretrainedLanguage | EncoderDecoderLanguage, Field(discriminator="kind")]
"""The language model."""
