"""The Q-Former: learned queries that read a picture, and words that share their self-attention (BLIP-2).

Li et al., 2023, section 3.1 and Figure 2. As a connector it has a norm on the picture's tokens, queries, layers and a
projection to the language model. While it is pretrained it has `text` instead of the projection: everything that only
words need, which the second stage leaves out by the name `connector.text`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.nn.post_norm import KeysValues, deviation, num_tokens, start
from isthmus.parts.connectors.connector import Connector
from isthmus.parts.connectors.qformer_layers import QFormerLayers, QFormerShape
from isthmus.parts.connectors.qformer_masks import behind_earlier, full, multimodal_causal
from isthmus.parts.language.words import placed, word_head


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A batch of pictures as the queries saw them.

    Attributes:
        queries: What left the last layer.
        memory: What words can read of the queries in each layer.
    """

    queries: Float[Tensor, "image query dim"]
    memory: list[KeysValues]


@final
class QFormerText(nn.Module):
    """What words need besides the shared layers: embeddings, feed-forwards and BERT's output head (tied to the words).

    BERT's token types are left out, as in the published code.
    """

    def __init__(self, *, vocabulary: int, context: int, shape: QFormerShape) -> None:
        """Build it.

        Args:
            vocabulary: Number of token ids, the one that begins a caption included.
            context: Largest number of words.
            shape: Sizes of the layers.
        """
        super().__init__()
        self.words = nn.Embedding(vocabulary, shape.width)
        self.positions = nn.Embedding(context, shape.width)
        self.ffns = nn.ModuleList(shape.feed_forward() for _ in range(shape.num_layers))
        self.head = word_head(shape.width)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary))

    def embed(
        self, token_ids: Int[Tensor, "text token"], *, first: int = 0
    ) -> Float[Tensor, "text token dim"]:
        """Words with their positions, which count from `first`, whether or not queries stand before them.

        Raises:
            ValueError: The text is longer than there are positions.
        """
        return placed(self.words, self.positions, token_ids, first=first)

    def logits(self, hidden: Float[Tensor, "position dim"]) -> Float[Tensor, "position vocab"]:
        """Logits of the next word."""
        return functional.linear(self.head(hidden), self.words.weight, self.head_bias)


@final
class QFormer(Connector):
    """Any number of patches to `shape.num_queries` visual tokens."""

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int | None,
        shape: QFormerShape,
        text: QFormerText | None = None,
    ) -> None:
        """Build it.

        Args:
            vision_width: Size of the encoder's tokens.
            language_width: Size of the visual tokens that leave; None leaves out the projection.
            shape: Queries and layers.
            text: What words need; None for a connector that sees pictures only.
        """
        super().__init__()
        self.shape = shape
        self.patch_norm = nn.LayerNorm(vision_width, eps=shape.patch_norm_eps)
        self.queries = nn.Parameter(torch.empty(shape.num_queries, shape.width))
        self.layers = QFormerLayers(vision_width=vision_width, shape=shape)
        self.text = text
        self.projection = None if language_width is None else nn.Linear(shape.width, language_width)
        start(self, width=shape.width)
        nn.init.normal_(self.queries, std=deviation(shape.width))

    def num_tokens(self, num_patches: int) -> int:
        """The number of queries, whatever the number of patches."""
        return self.shape.num_queries

    def forward(self, patches: Float[Tensor, "image patch vision_dim"]) -> Float[Tensor, "image token width"]:
        """The queries of each picture, projected."""
        queries = self.summarise(patches).queries
        return queries if self.projection is None else self.projection(queries)

    def summarise(self, patches: Float[Tensor, "image patch vision_dim"]) -> Summary:
        """Let the queries read each picture; no word is there."""
        queries, memory = self.layers.summarise(self._queries_for(patches), self.patch_norm(patches))
        return Summary(queries=queries, memory=memory)

    def read(
        self, token_ids: Int[Tensor, "text token"], there: Bool[Tensor, "text token"]
    ) -> Float[Tensor, "text token dim"]:
        """Words that see no picture (contrast)."""
        text = self._text()
        return self.layers.read(text.embed(token_ids), list(text.ffns), full(0, there))[0]

    def write(
        self,
        token_ids: Int[Tensor, "text token"],
        there: Bool[Tensor, "text token"],
        memory: list[KeysValues],
    ) -> Float[Tensor, "text token dim"]:
        """Words that see their picture's queries and earlier words (captioning).

        The queries see no words, so what they gave in `summarise` serves here again and nothing is computed twice.
        """
        text = self._text()
        allowed = multimodal_causal(self.shape.num_queries, there)[:, self.shape.num_queries :]
        return self.layers.read(text.embed(token_ids), list(text.ffns), allowed, memory)[0]

    def write_on(
        self,
        token_ids: Int[Tensor, "text token"],
        memory: Sequence[KeysValues],
        past: Sequence[KeysValues] = (),
    ) -> tuple[Float[Tensor, "text token dim"], list[KeysValues]]:
        """Words behind others that were read before, and what later ones can read of them in each layer.

        Args:
            token_ids: As many in each text: nothing is padding.
            memory: As in `write`.
            past: What this gave for the earlier words.
        """
        text = self._text()
        first = num_tokens(past)
        allowed = behind_earlier(self.shape.num_queries, token_ids, num_earlier=first)
        read = [before.before(own) for before, own in zip(memory, past, strict=True)] if past else memory
        return self.layers.read(text.embed(token_ids, first=first), list(text.ffns), allowed, read)

    def join(
        self,
        patches: Float[Tensor, "text patch vision_dim"],
        token_ids: Int[Tensor, "text token"],
        allowed: Bool[Tensor, "text position position"],
    ) -> Float[Tensor, "text position dim"]:
        """Queries and words in one pass under any mask (matching takes `full`); queries stand first."""
        text = self._text()
        tokens = torch.cat([self._queries_for(patches), text.embed(token_ids)], dim=1)
        return self.layers.join(
            tokens, self.patch_norm(patches), list(text.ffns), allowed, num_queries=self.shape.num_queries
        )

    def _queries_for(
        self, patches: Float[Tensor, "image patch vision_dim"]
    ) -> Float[Tensor, "image query dim"]:
        return repeat(self.queries, "query dim -> image query dim", image=patches.shape[0])

    def _text(self) -> QFormerText:
        if self.text is None:
            raise ValueError("this Q-Former has no text branch, so it reads pictures only")
        return self.text
