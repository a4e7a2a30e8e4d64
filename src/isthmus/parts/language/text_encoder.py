"""A text encoder for contrastive training: token ids to one vector."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.nn.pooling import masked_mean
from isthmus.nn.transformer import Transformer, TransformerShape

Pool = Literal["end", "first", "mean"]


class TextEncoder(nn.Module):
    """A transformer over token embeddings, pooled and projected.

    `end` reads the last real token and sees only what comes before (causal, as CLIP does; the end token is found by the
    mask, so any tokenizer works); `first` and `mean` see the whole text (Zhai et al., 2022; Li et al., 2023).
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        shape: TransformerShape,
        embed_dim: int,
        pool: Pool = "end",
        word_dropout: float = 0.0,
        rarity: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            vocabulary: Number of token ids.
            context: Largest number of tokens in a text.
            shape: Sizes of the blocks; zero layers make a bag of words.
            embed_dim: Size of the vector.
            pool: How tokens become one vector.
            word_dropout: Fraction of tokens (never all of them) hidden in training.
            rarity: For `mean`: weigh tokens by learned numbers that start at log(1 + id). Ids of a trained
                word tokenizer are ordered by frequency, so by Zipf's law that is the inverse document
                frequency up to a constant.
        """
        super().__init__()
        self.context = context
        self.pool: Pool = pool
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(vocabulary, shape.width)
        self.positions = nn.Parameter(torch.empty(context, shape.width)) if shape.num_layers else None
        start = torch.log1p(torch.arange(vocabulary, dtype=torch.float32))
        self.rarity = nn.Parameter(start / start.mean()) if rarity else None
        self.dropout = nn.Dropout(shape.dropout)
        self.transformer = Transformer(shape)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.projection = nn.Linear(shape.width, embed_dim, bias=False)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.01)

    def forward(
        self, token_ids: Int[Tensor, "text token"], mask: Bool[Tensor, "text token"]
    ) -> Float[Tensor, "text dim"]:
        """One vector a text, not yet of unit length."""
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
        tokens = self.transformer(tokens, mask, causal=self.pool == "end")
        return self.projection(self.norm(self._pooled(tokens, mask)))

    def _pooled(
        self, tokens: Float[Tensor, "text token dim"], mask: Bool[Tensor, "text token"]
    ) -> Float[Tensor, "text dim"]:
        match self.pool:
            case "mean":
                return masked_mean(tokens, mask)
            case "first":
                return tokens[:, 0]
            case "end":
                places = torch.arange(mask.shape[1], device=mask.device)
                last = (mask * places).argmax(dim=1)
                index = rearrange(last, "text -> text 1 1").expand(-1, 1, tokens.shape[2])
                return rearrange(tokens.gather(1, index), "text 1 dim -> text dim")
