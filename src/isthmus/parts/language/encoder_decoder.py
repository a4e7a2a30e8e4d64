"""A Hugging Face encoder-decoder as a part: its encoder reads pictures and a prompt, its decoder writes."""

from typing import cast, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from isthmus.parts.checkpoints import PretrainedSource, architecture_of, load_network
from isthmus.parts.language.language_model import with_words

FAMILIES = ("t5",)
"""Configurations that are known; FLAN-T5's is `t5`."""


@final
class EncoderDecoder(nn.Module):
    """What a vision-language model needs of an encoder-decoder language model (T5, Raffel et al., 2020).

    It offers what `LanguageModel` does; visual tokens stand among what the encoder reads, and hidden states and logits
    are those of the decoder.
    """

    rows = None
    """There are no trained rows of special tokens; they go with gated cross-attention, which is for causal models."""

    def __init__(self, *, network: PreTrainedModel) -> None:
        """Wrap a network with its output head."""
        super().__init__()
        self.network = network

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of input embeddings, which both sides share."""
        return cast(nn.Embedding, self.network.get_input_embeddings())

    @property
    def width(self) -> int:
        """Size of an embedding."""
        return self.token_embeddings.embedding_dim

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table: ids from here on are free for virtual placeholders."""
        return self.token_embeddings.num_embeddings

    @property
    def new_ids(self) -> range:
        """No special tokens have rows of their own."""
        return range(self.vocabulary, self.vocabulary)

    @property
    def start_id(self) -> int:
        """The token that the decoder's side begins with; where a T5 does not say, its padding token."""
        config = self.network.config
        named = config.decoder_start_token_id
        return int(config.pad_token_id if named is None else named)

    def embed(
        self, token_ids: Int[Tensor, "row token"], joined_ids: Int[Tensor, "row token word"] | None = None
    ) -> Float[Tensor, "row token dim"]:
        """Embeddings of the encoder's side; further ids of a position are summed as in `LanguageModel.embed`."""
        embeddings = self.token_embeddings(token_ids)
        return embeddings if joined_ids is None else with_words(embeddings, joined_ids, self.token_embeddings)

    def forward(
        self,
        embeddings: Float[Tensor, "row token dim"],
        attention_mask: Bool[Tensor, "row token"],
        decoder_ids: Int[Tensor, "row target"],
        decoder_mask: Bool[Tensor, "row target"],
    ) -> Float[Tensor, "row target dim"]:
        """Last hidden states of the decoder, which reads the encoder's and its own earlier tokens."""
        encoded = self.network.get_encoder()(inputs_embeds=embeddings, attention_mask=attention_mask.long())
        decoded = self.network.get_decoder()(
            input_ids=decoder_ids,
            attention_mask=decoder_mask.long(),
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask.long(),
            use_cache=False,
        )
        return decoded.last_hidden_state

    def logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """The output head; the first T5, whose head is its table, scales hidden states before it."""
        head = self.network.get_output_embeddings()
        assert head is not None
        scaled = bool(self.network.config.scale_decoder_outputs)
        return head(hidden * self.width**-0.5 if scaled else hidden)


def load_encoder_decoder(source: PretrainedSource) -> PreTrainedModel:
    """An encoder-decoder language model with its output head.

    Raises:
        OSError: The folder or name is not there.
        ValueError: The architecture is not known here, or the checkpoint lacks weights.
    """
    found = architecture_of(AutoModelForSeq2SeqLM, source).model_type
    if found not in FAMILIES:
        raise ValueError(
            f"encoder-decoder language models of type '{found}' are not known; known are {', '.join(FAMILIES)}"
        )
    network = load_network(AutoModelForSeq2SeqLM, source)
    if source.random and not network.config.scale_decoder_outputs:
        _untie(network)
    return network


@torch.no_grad()
def _untie(network: PreTrainedModel) -> None:
    """Give a T5 of version 1.1 (FLAN-T5) the head of its own that its checkpoints hold.

    transformers 5 ties every T5's head to its table unless a checkpoint brings both, so that with random weights 65.8
    million parameters of FLAN-T5-XL would be missing.
    """
    head = cast(nn.Linear, network.get_output_embeddings())
    head.weight = nn.Parameter(torch.empty_like(head.weight).normal_())
    network.config.tie_word_embeddings = False
