"""A Hugging Face causal language model as a part: embeddings in, hidden states out, its output head apart."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from isthmus.parts.checkpoints import PretrainedSource, architecture_of, load_network, quiet
from isthmus.parts.four_bits import check_whole
from isthmus.parts.language import attention
from isthmus.parts.language.token_rows import TokenRows


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """Sizes of a language model of our own, a small `LlamaForCausalLM` with tied embeddings.

    Attributes:
        vocabulary: Rows of the embedding table.
        width: Size of an embedding.
        num_layers: Number of decoder layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; fewer than `num_heads` is grouped-query attention.
        ffn: Width of the gated feed-forward.
        context: Largest number of positions.
        attention_dropout: Fraction of attention weights dropped in training.
        pad_id: What fills rows up, as the tokenizer has it; None where no tokenizer is known yet.
        start_id: The tokenizer's first token, or None.
        end_id: The tokenizer's last token, at which generation in transformers stops, or None.
    """

    vocabulary: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn: int
    context: int
    attention_dropout: float = 0.0
    pad_id: int | None = None
    start_id: int | None = None
    end_id: int | None = None


class LanguageModel(nn.Module):
    """What a vision-language model needs of a causal language model, whatever its family."""

    def __init__(
        self, *, network: PreTrainedModel, input_dropout: float = 0.0, rows: TokenRows | None = None
    ) -> None:
        """Wrap a causal language model.

        Args:
            network: The model, with its output head.
            input_dropout: Fraction of embedding numbers dropped in training.
            rows: Trained embeddings of special tokens, whose ids follow the table.
        """
        super().__init__()
        self.network = network
        self.rows = rows
        self.input_dropout = nn.Dropout(input_dropout)
        self._takes_positions = "position_ids" in inspect.signature(self._decoder.forward).parameters

    @property
    def _decoder(self) -> PreTrainedModel:
        return cast(PreTrainedModel, self.network.base_model)

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of input embeddings."""
        table = self.network.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    @property
    def width(self) -> int:
        """Size of an embedding."""
        return self.token_embeddings.embedding_dim

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table: ids from here on are free for virtual placeholders."""
        return self.token_embeddings.num_embeddings

    @property
    def num_positions(self) -> int | None:
        """The most tokens that its configuration says it reads; None where it says nothing, as MPT's does."""
        config = self.network.config
        name = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        return config.to_dict().get(name)

    @property
    def new_ids(self) -> range:
        """Ids of special tokens with trained rows of their own, which follow the table's."""
        num_rows = 0 if self.rows is None else self.rows.table.shape[0]
        return range(self.vocabulary, self.vocabulary + num_rows)

    def embed(
        self, token_ids: Int[Tensor, "row token"], joined_ids: Int[Tensor, "row token word"] | None = None
    ) -> Float[Tensor, "row token dim"]:
        """Input embeddings; in transformers 5 any scale of them (Gemma) is applied here, not later.

        Where there are further ids of a position (not -1) its vector is the sum of all words' over the root of
        their number.
        """
        table = self.token_embeddings
        embeddings = table(token_ids) if self.rows is None else self.rows.embed(token_ids, table)
        return embeddings if joined_ids is None else with_words(embeddings, joined_ids, table)

    def save_as_checkpoint(self, folder: Path) -> None:
        """Write a Hugging Face folder that `load_causal_network` and transformers read."""
        with quiet():
            self.network.save_pretrained(folder)

    def forward(
        self, embeddings: Float[Tensor, "row token dim"], attention_mask: Bool[Tensor, "row token"]
    ) -> Float[Tensor, "row token dim"]:
        """Last hidden states. Positions count real tokens only, so left and right padding give the same."""
        positions = {"position_ids": positions_of(attention_mask)} if self._takes_positions else {}
        output = self._decoder(
            inputs_embeds=self.input_dropout(embeddings),
            attention_mask=attention_mask.long(),
            use_cache=False,
            **positions,
        )
        return output.last_hidden_state

    def logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """The output head, for the positions that need it."""
        head = self.network.get_output_embeddings()
        assert head is not None
        return head(hidden)


def with_words(
    embeddings: Float[Tensor, "row token dim"], joined_ids: Int[Tensor, "row token word"], table: nn.Embedding
) -> Float[Tensor, "row token dim"]:
    """Embeddings of positions that stand for several words: the sum of all over the root of their number."""
    there = joined_ids >= 0
    words = table(joined_ids.clamp(min=0)) * there[..., None]
    return (embeddings + words.sum(dim=2)) / (1 + there.sum(dim=2, keepdim=True)).sqrt()


def positions_of(attention_mask: Bool[Tensor, "row token"]) -> Int[Tensor, "row token"]:
    """Position of each token among the real tokens of its row; padding gets 0."""
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def build_llama(shape: LlamaShape) -> PreTrainedModel:
    """A small language model with random weights and tied embeddings."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=shape.context,
        attention_dropout=shape.attention_dropout,
        tie_word_embeddings=True,
        # The usual 0.02 is made for widths in the thousands; with it a small model needs about twice the steps.
        initializer_range=shape.width**-0.5,
        pad_token_id=shape.pad_id,
        bos_token_id=shape.start_id,
        eos_token_id=shape.end_id,
    )
    network = LlamaForCausalLM(config)
    network.set_attn_implementation(attention.NAME)
    return network


def load_causal_network(source: PretrainedSource) -> PreTrainedModel:
    """A causal language model with its output head.

    Raises:
        OSError: The folder or name is not there.
        ValueError: It is a model of another kind or in few bits already, or the checkpoint lacks weights.
    """
    architecture = architecture_of(AutoModelForCausalLM, source)
    check_whole(architecture, source.name)
    found = architecture.model_type
    if found not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(
            f"'{source.name}' is of type '{found}', which is no causal language model; name one such as a LLaMA, Gemma "
            "or GPT-2, or for a T5 use kind: encoder_decoder"
        )
    return load_network(AutoModelForCausalLM, source)
