"""The layers of a Q-Former: BERT's, with cross-attention and a feed-forward of their own for queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.nn.post_norm import NORM_EPS, KeysValues, PostNormAttention, PostNormFeedForward


@dataclass(frozen=True, kw_only=True)
class QFormerShape:
    """Sizes of a Q-Former; BLIP-2's is the default (Li et al., 2023, section 3.1).

    Attributes:
        num_queries: Learned queries, which is the number of visual tokens.
        width: Size of a query and of a word.
        num_layers: Number of layers.
        num_heads: Heads of each attention.
        ffn: Width of the feed-forwards.
        cross_every: Queries read the picture in layers 0, this, twice this, and so on.
        dropout: Fraction dropped in training, of attention weights and after each sublayer.
        patch_norm_eps: Epsilon of the norm on the picture's tokens: 1e-5 as published, 1e-6 in transformers.
    """

    num_queries: int = 32
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn: int = 3072
    cross_every: int = 2
    dropout: float = 0.1
    patch_norm_eps: float = 1e-5

    def feed_forward(self) -> PostNormFeedForward:
        """One feed-forward of these sizes."""
        return PostNormFeedForward(width=self.width, hidden=self.ffn, dropout=self.dropout)


@final
class QFormerLayer(nn.Module):
    """Self-attention that queries and words share; queries then read the picture; each side has its feed-forward."""

    def __init__(self, *, vision_width: int, shape: QFormerShape, reads_picture: bool) -> None:
        super().__init__()
        self.attention = PostNormAttention(
            width=shape.width, context_width=shape.width, num_heads=shape.num_heads, dropout=shape.dropout
        )
        self.cross_attention = (
            PostNormAttention(
                width=shape.width,
                context_width=vision_width,
                num_heads=shape.num_heads,
                dropout=shape.dropout,
            )
            if reads_picture
            else None
        )
        self.ffn = shape.feed_forward()

    def of_queries(
        self, queries: Float[Tensor, "image query dim"], patches: Float[Tensor, "image patch vision_dim"]
    ) -> Float[Tensor, "image query dim"]:
        """What follows self-attention for queries."""
        if self.cross_attention is not None:
            queries = self.cross_attention(queries, self.cross_attention.keys_and_values(patches))
        return self.ffn(queries)


@final
class QFormerLayers(nn.Module):
    """The norm on what enters, and all layers; what only words need stands elsewhere and is handed in."""

    def __init__(self, *, vision_width: int, shape: QFormerShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(
            QFormerLayer(vision_width=vision_width, shape=shape, reads_picture=at % shape.cross_every == 0)
            for at in range(shape.num_layers)
        )

    def summarise(
        self, queries: Float[Tensor, "image query dim"], patches: Float[Tensor, "image patch vision_dim"]
    ) -> tuple[Float[Tensor, "image query dim"], list[KeysValues]]:
        """Queries alone read the picture; also what words can read of them in each layer."""
        tokens, memory = self.dropout(self.norm(queries)), []
        for layer in self._typed():
            memory.append(layer.attention.keys_and_values(tokens))
            tokens = layer.of_queries(layer.attention(tokens, memory[-1]), patches)
        return tokens, memory

    def read(
        self,
        words: Float[Tensor, "text token dim"],
        ffns: Sequence[nn.Module],
        allowed: Bool[Tensor, "text token position"],
        memory: Sequence[KeysValues] = (),
    ) -> tuple[Float[Tensor, "text token dim"], list[KeysValues]]:
        """Words alone, or words that read the queries of a picture that was summarised before.

        Args:
            words: Embeddings.
            ffns: The words' feed-forward of each layer.
            allowed: What each word may read; queries, where there is a memory, stand before the words.
            memory: What `summarise` gave for each word's picture; empty without one.

        Returns:
            States of the words, and what later words can read of them in each layer.
        """
        tokens, kept = self.dropout(self.norm(words)), []
        for at, (layer, ffn) in enumerate(zip(self._typed(), ffns, strict=True)):
            own = layer.attention.keys_and_values(tokens)
            kept.append(own)
            tokens = ffn(layer.attention(tokens, memory[at].before(own) if memory else own, allowed))
        return tokens, kept

    def join(
        self,
        tokens: Float[Tensor, "text position dim"],
        patches: Float[Tensor, "text patch vision_dim"],
        ffns: Sequence[nn.Module],
        allowed: Bool[Tensor, "text position position"],
        *,
        num_queries: int,
    ) -> Float[Tensor, "text position dim"]:
        """Queries and words in one pass; the first `num_queries` positions are queries."""
        tokens = self.dropout(self.norm(tokens))
        for layer, ffn in zip(self._typed(), ffns, strict=True):
            tokens = layer.attention(tokens, layer.attention.keys_and_values(tokens), allowed)
            queries = layer.of_queries(tokens[:, :num_queries], patches)
            tokens = torch.cat([queries, ffn(tokens[:, num_queries:])], dim=1)
        return tokens

    def _typed(self) -> list[QFormerLayer]:
        return [layer for layer in self.layers if isinstance(layer, QFormerLayer)]
