"""The text side of BLIP: one transformer that reads words, words beside a picture, or writes them (Li et al., 2022).

Section 3.1 and Figure 2: the multimodal mixture of encoder and decoder (MED). Both have BERT's layers with
cross-attention to the picture in each, and share all of them but self-attention. Here `MedText` is what they share, and
`MedEncoder` and `MedDecoder` are what each has of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.nn.post_norm import (
    NORM_EPS,
    KeysValues,
    PostNormAttention,
    PostNormFeedForward,
    num_tokens,
    start,
)
from isthmus.nn.token_norm import Norm, token_norm
from isthmus.parts.language.words import placed, word_head


@dataclass(frozen=True, kw_only=True)
class MedShape:
    """Sizes of the layers; BERT-base is the default.

    Attributes:
        width: Size of a word.
        num_layers: Number of layers.
        num_heads: Heads of each attention.
        ffn: Width of the feed-forwards.
        dropout: Fraction dropped in training, of attention weights and after each sublayer.
    """

    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn: int = 3072
    dropout: float = 0.1

    def attentions(self, *, context_width: int) -> nn.ModuleList:
        """One attention a layer."""
        return nn.ModuleList(
            PostNormAttention(
                width=self.width,
                context_width=context_width,
                num_heads=self.num_heads,
                dropout=self.dropout,
            )
            for _ in range(self.num_layers)
        )


@final
class MedEncoder(nn.Module):
    """Self-attention of the encoder: every word reads every word."""

    def __init__(self, *, shape: MedShape) -> None:
        super().__init__()
        self.attentions = shape.attentions(context_width=shape.width)
        start(self, width=shape.width)


@final
class MedDecoder(nn.Module):
    """Self-attention of the decoder, where words read earlier ones, and BERT's output head (tied to the words)."""

    def __init__(self, *, shape: MedShape, vocabulary: int) -> None:
        super().__init__()
        self.attentions = shape.attentions(context_width=shape.width)
        self.head = word_head(shape.width)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary))
        start(self, width=shape.width)

    def logits(
        self, hidden: Float[Tensor, "position dim"], text: "MedText"
    ) -> Float[Tensor, "position vocab"]:
        """Logits of the next word."""
        return functional.linear(self.head(hidden), text.words.weight, self.head_bias)


@final
class MedText(nn.Module):
    """What encoder and decoder share: words, cross-attention, feed-forwards."""

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        vision_width: int,
        shape: MedShape,
        vision_norm: Norm = "none",
    ) -> None:
        """Build it.

        Args:
            vocabulary: Number of token ids, those that begin a caption (`[DEC]`) and a match (`[ENC]`) included.
            context: Largest number of words.
            vision_width: Size of the pictures' tokens.
            shape: Sizes of the layers.
            vision_norm: What stands between a picture's tokens and cross-attention.
        """
        super().__init__()
        self.shape = shape
        self.vision_norm = token_norm(vision_norm, vision_width)
        self.words = nn.Embedding(vocabulary, shape.width)
        self.positions = nn.Embedding(context, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.dropout = nn.Dropout(shape.dropout)
        self.cross_attentions = shape.attentions(context_width=vision_width)
        self.ffns = nn.ModuleList(
            PostNormFeedForward(width=shape.width, hidden=shape.ffn, dropout=shape.dropout)
            for _ in range(shape.num_layers)
        )
        start(self, width=shape.width)

    def look(self, patches: Float[Tensor, "image patch vision_dim"]) -> list[KeysValues]:
        """What words can read of pictures in each layer."""
        seen = self.vision_norm(patches)
        return [attention.keys_and_values(seen) for attention in _typed(self.cross_attentions)]

    def forward(
        self,
        attentions: nn.ModuleList,
        token_ids: Int[Tensor, "text token"],
        allowed: Bool[Tensor, "text token position"] | None,
        *,
        pictures: Sequence[KeysValues] = (),
        past: Sequence[KeysValues] = (),
    ) -> tuple[Float[Tensor, "text token dim"], list[KeysValues]]:
        """Run all layers.

        Args:
            attentions: Self-attention of each layer, the encoder's or the decoder's.
            token_ids: The words.
            allowed: What each word may read of earlier words and of these; None: all.
            pictures: What `look` gave for each text's picture; empty: words see none.
            past: What this gave for earlier words of the same texts.

        Returns:
            States of these words, and what later ones can read of them in each layer.

        Raises:
            ValueError: The text is longer than there are positions.
        """
        embedded = placed(self.words, self.positions, token_ids, first=num_tokens(past))
        tokens, kept = self.dropout(self.norm(embedded)), []
        for at, (attention, cross, ffn) in enumerate(
            zip(_typed(attentions), _typed(self.cross_attentions), self.ffns, strict=True)
        ):
            own = attention.keys_and_values(tokens)
            kept.append(own)
            tokens = attention(tokens, past[at].before(own) if past else own, allowed)
            if pictures:
                tokens = cross(tokens, pictures[at])
            tokens = ffn(tokens)
        return tokens, kept


def _typed(attentions: nn.ModuleList) -> list[PostNormAttention]:
    return [attention for attention in attentions if isinstance(attention, PostNormAttention)]
