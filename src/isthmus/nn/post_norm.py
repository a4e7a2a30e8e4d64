"""Post-norm blocks as in BERT: each sublayer's output is added to its input, then normalised (Devlin et al., 2019)."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.nn.attention import check_heads
from isthmus.nn.scaled_products import attend

NORM_EPS = 1e-12
"""Epsilon of BERT's layer norms."""


class KeysValues(NamedTuple):
    """What queries of an attention read."""

    keys: Float[Tensor, "batch head token dim"]
    values: Float[Tensor, "batch head token dim"]

    def chosen(self, rows: Tensor) -> "KeysValues":
        """Those of some rows of the batch, in the order given."""
        return KeysValues(self.keys[rows], self.values[rows])

    def before(self, others: "KeysValues") -> "KeysValues":
        """These tokens, then the others."""
        return KeysValues(
            torch.cat([self.keys, others.keys], dim=2), torch.cat([self.values, others.values], dim=2)
        )


def num_tokens(past: Sequence[KeysValues]) -> int:
    """How many tokens were read before, by what each layer kept of them."""
    return past[0].keys.shape[2] if past else 0


@final
class PostNormAttention(nn.Module):
    """Multi-head attention, dropout, residual, norm; every projection has biases."""

    def __init__(self, *, width: int, context_width: int, num_heads: int, dropout: float = 0.0) -> None:
        """Build the projections.

        Args:
            width: Size of a token vector.
            context_width: Size of the vectors that are read; `width` in self-attention.
            num_heads: Number of heads; divides `width`.
            dropout: Fraction of attention weights, and of what they give, dropped in training.

        Raises:
            ValueError: The heads do not divide the width.
        """
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def keys_and_values(self, context: Float[Tensor, "batch token context_dim"]) -> KeysValues:
        """What the queries read; a context that stays the same over several calls needs this only once."""
        return KeysValues(self._split(self.key(context)), self._split(self.value(context)))

    def forward(
        self,
        tokens: Float[Tensor, "batch query dim"],
        read: KeysValues,
        allowed: Bool[Tensor, "batch query token"] | None = None,
    ) -> Float[Tensor, "batch query dim"]:
        """Let each token read what it may; each must be allowed at least one."""
        mixed = attend(
            self._split(self.query(tokens)),
            read.keys,
            read.values,
            mask=None if allowed is None else rearrange(allowed, "batch query token -> batch 1 query token"),
            dropout=self.dropout.p if self.training else 0.0,
            learns=self.training,
        )
        joined = rearrange(mixed, "batch head query dim -> batch query (head dim)")
        return self.norm(tokens + self.dropout(self.out(joined)))

    def _split(self, tokens: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch head token dim"]:
        return rearrange(tokens, "batch token (head dim) -> batch head token dim", head=self.num_heads)


@final
class PostNormFeedForward(nn.Module):
    """Two linear layers with an exact GELU between them, dropout, residual, norm."""

    def __init__(self, *, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Update each token by itself."""
        changed = self.contract(functional.gelu(self.expand(tokens)))
        return self.norm(tokens + self.dropout(changed))


def deviation(width: int) -> float:
    """The spread of initial weights: BERT's 0.02 at its own width and above, and as in `nn.transformer` below it."""
    return 0.02 if width >= 768 else width**-0.5


def start(module: nn.Module, *, width: int) -> None:
    """Draw the initial weights of every linear layer and table in a module; biases are zero."""
    for one in module.modules():
        if isinstance(one, nn.Linear | nn.Embedding):
            nn.init.normal_(one.weight, std=deviation(width))
        if isinstance(one, nn.Linear):
            nn.init.zeros_(one.bias)
