"""Decoding: from a batch of prompts to new tokens, by transformers' own generation over embeddings."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig
from transformers._typing import GenerativePreTrainedModel

from isthmus.core.batch import Batch
from isthmus.parts.language.encoder_decoder import EncoderDecoder
from isthmus.parts.language.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        method: `greedy` takes the likeliest token, `beam` keeps `beams` hypotheses, `sample` draws.
        beams: Number of hypotheses of beam search.
        temperature: Divides the logits when drawing.
        top_p: Draw among the likeliest tokens that hold this share of the probability (nucleus sampling).
        max_new_tokens: Longest answer, in tokens.
        length_penalty: Beam scores are divided by length to this power; above 1 favours longer texts.
        no_repeat_ngram: Never write the same run of this many tokens twice; 0 allows it.
        use_cache: Keep keys and values of earlier positions; without it the same tokens come out, slower.
    """

    method: Literal["greedy", "beam", "sample"] = "greedy"
    beams: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 32
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    use_cache: bool = True


class Writes(Protocol):
    """A model that can continue rows: it embeds them and has a language model."""

    @property
    def language(self) -> LanguageModel | EncoderDecoder:
        """What writes."""
        ...

    def reading(self, batch: Batch) -> AbstractContextManager[Float[Tensor, "row token dim"]]:
        """Embeddings of the rows; while this lasts, the language model sees the batch's pictures."""
        ...


@torch.no_grad()
def generate(
    model: Writes, batch: Batch, decoding: Decoding, *, end_ids: tuple[int, ...], pad_id: int, seed: int = 0
) -> list[list[int]]:
    """Continue every row until an end token or the limit.

    Args:
        model: The model, in eval mode.
        batch: Prompts, padded on the left.
        decoding: How tokens are chosen.
        end_ids: Ids that end an answer; they are not part of what is returned.
        pad_id: Id that fills finished rows.
        seed: Drives `sample` only; the global generator is left as it was.

    Returns:
        New token ids of each row.
    """
    assert batch.attention_mask is not None
    with drawing(decoding, seed):
        network = cast(GenerativePreTrainedModel, model.language.network)
        configuration = configuration_of(decoding, end_ids, pad_id)
        # A marker that the head could write stands for a picture, which only a prompt can bring.
        configuration.suppress_tokens = [
            index for index in model.language.new_ids if index not in end_ids
        ] or None
        if isinstance(model.language, EncoderDecoder):
            configuration.decoder_start_token_id = model.language.start_id
        with model.reading(batch) as embeddings:
            new = network.generate(
                inputs_embeds=embeddings,
                attention_mask=batch.attention_mask.long(),
                generation_config=configuration,
            )
    first = int(isinstance(model.language, EncoderDecoder))  # its rows begin with the start token
    return [before_end(row[first:], end_ids) for row in cast(Int[Tensor, "row token"], new).tolist()]


@contextlib.contextmanager
def drawing(decoding: Decoding, seed: int) -> Iterator[None]:
    """Draw by a seed of its own where tokens are drawn, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[], enabled=decoding.method == "sample"):
        if decoding.method == "sample":
            torch.manual_seed(seed)
        yield


def configuration_of(decoding: Decoding, end_ids: tuple[int, ...], pad_id: int) -> GenerationConfig:
    """What transformers' generation is told."""
    is_drawn = decoding.method == "sample"
    return GenerationConfig(
        do_sample=is_drawn,
        num_beams=decoding.beams if decoding.method == "beam" else 1,
        temperature=decoding.temperature if is_drawn else None,
        top_p=decoding.top_p if is_drawn else None,
        top_k=0 if is_drawn else None,
        max_new_tokens=decoding.max_new_tokens,
        length_penalty=decoding.length_penalty,
        no_repeat_ngram_size=decoding.no_repeat_ngram,
        use_cache=decoding.use_cache,
        eos_token_id=list(end_ids),
        pad_token_id=pad_id,
        bos_token_id=None,
    )


def before_end(row: list[int], end_ids: tuple[int, ...]) -> list[int]:
    """The tokens before the first that ends a text."""
    stop = next((place for place, token in enumerate(row) if token in end_ids), len(row))
    return row[:stop]
