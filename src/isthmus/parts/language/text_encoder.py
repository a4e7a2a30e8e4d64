"""A text encoder for contrastive training: token ids to one vector."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.nn.pooling import masked_mean
from isthmus.nn.transformer import Transformer, TransformerShape

Pool = Literal["end", "first", "mean", "last"]


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """What a text encoder has to know of its tokenizer.

    Attributes:
        vocabulary: Number of token ids.
        context: Largest number of tokens in a text.
        end_id: The id that ends a text; None reads the last token that is not padding.
        pad_id: The id that fills texts up.
    """

    vocabulary: int
    context: int
    end_id: int | None = None
    pad_id: int = 0


class TextEncoder(nn.Module):
    """A transformer over token embeddings, pooled and projected.

    `end` reads the end token and sees only what comes before (causal, as CLIP does). The token is found by its id, the
    first one where there are several, and not by the largest id of a text, as OpenAI's code does: that is right for
    CLIP's vocabulary alone. `first` and `mean` see the whole text (Zhai et al., 2022; Li et al., 2023). `last` fills
    every text up to the whole context and reads the last place; what fills up is read like words (SigLIP).
    """

    def __init__(
        self,
        *,
        tokens: TokenIds,
        shape: TransformerShape,
        embed_dim: int,
        pool: Pool = "end",
        word_dropout: float = 0.0,
        rarity: bool = False,
        head_bias: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            tokens: How many ids there are and what they mean.
            shape: Sizes of the blocks; zero layers make a bag of words.
            embed_dim: Size of the vector.
            pool: How tokens become one vector.
            word_dropout: Fraction of tokens (never all of them) hidden in training.
            rarity: For `mean`: weigh tokens by learned numbers that start at log(1 + id). Ids of a trained
                word tokenizer are ordered by frequency, so by Zipf's law that is the inverse document
                frequency up to a constant.
            head_bias: Whether the projection has a bias (SigLIP's has).
        """
        super().__init__()
        self.tokens = tokens
        self.pool: Pool = pool
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(tokens.vocabulary, shape.width)
        self.positions = nn.Parameter(torch.empty(tokens.context, shape.width)) if shape.num_layers else None
        start = torch.log1p(torch.arange(tokens.vocabulary, dtype=torch.float32))
        self.rarity = nn.Parameter(start / start.mean()) if rarity else None
        self.dropout = nn.Dropout(shape.dropout)
        self.transformer = Transformer(shape)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.projection = nn.Linear(shape.width, embed_dim, bias=head_bias)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.01)

    def forward(
        self, token_ids: Int[Tensor, "text token"], mask: Bool[Tensor, "text token"]
    ) -> Float[Tensor, "text dim"]:
        """One vector a text, not yet of unit length.

        Raises:
            ValueError: The texts are longer than the context.
        """
        if token_ids.shape[1] > self.tokens.context:
            raise ValueError(
                f"a text has {token_ids.shape[1]} tokens, but the text encoder reads at most {self.tokens.context}; "
                "shorten it or raise the context"
            )
        if self.pool == "last":
            token_ids, mask = self._filled(token_ids, mask)
        if self.training and self.word_dropout > 0:
            kept = torch.rand_like(mask, dtype=torch.float32) >= self.word_dropout
            kept[:, 0] = True
            mask = mask & kept
        tokens = self.embedding(token_ids)
        if self.positions is not None:  # a bag of words has no order
            tokens = tokens + self.positions[: token_ids.shape[1]]
        if self.rarity is not None:
            tokens = tokens * rearrange(self.rarity[token_ids], "text token -> text token 1")
        tokens = self.dropout(tokens)
        # Behind the end token nothing counts, and where all places are read there is nothing to hide.
        hides = self.pool in ("first", "mean") or (self.training and self.word_dropout > 0)
        places = self._places(mask, token_ids)
        tokens = self.transformer(tokens, mask if hides else None, causal=self.pool == "end", places=places)
        return self.projection(self.norm(masked_mean(tokens, mask) if places is None else tokens[:, 0]))

    def _filled(
        self, token_ids: Int[Tensor, "text token"], mask: Bool[Tensor, "text token"]
    ) -> tuple[Int[Tensor, "text place"], Bool[Tensor, "text place"]]:
        """Texts of the whole context, and a mask that hides nothing."""
        room = (0, self.tokens.context - token_ids.shape[1])
        words = token_ids.masked_fill(~mask, self.tokens.pad_id)
        filled = functional.pad(words, room, value=self.tokens.pad_id)
        return filled, torch.ones_like(filled, dtype=torch.bool)

    def _places(
        self, mask: Bool[Tensor, "text token"], token_ids: Int[Tensor, "text token"]
    ) -> Int[Tensor, " text"] | None:
        """Which token of each text is its vector; None: the mean of all is."""
        numbers = torch.arange(mask.shape[1], device=mask.device)
        match self.pool:
            case "mean":
                return None
            case "first":
                return torch.zeros_like(token_ids[:, 0])
            case "last":
                return torch.full_like(token_ids[:, 0], mask.shape[1] - 1)
            case "end":
                last = (mask * numbers).argmax(dim=1)
                if self.tokens.end_id is None:
                    return last
                ends = token_ids == self.tokens.end_id
                return torch.where(ends.any(dim=1), ends.int().argmax(dim=1), last)
