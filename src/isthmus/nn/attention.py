"""Multi-head attention (Vaswani et al., 2017, section 3.2)."""

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.nn.scaled_products import attend


def check_heads(width: int, num_heads: int) -> None:
    """Refuse heads that do not divide the width.

    Raises:
        ValueError: They do not.
    """
    if width % num_heads:
        raise ValueError(
            f"a width of {width} cannot be split over {num_heads} heads; choose a divisor of the width"
        )


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, with one fused projection for queries, keys and values."""

    def __init__(
        self, *, width: int, num_heads: int, dropout: float = 0.0, bias: bool = True, key_bias: bool = True
    ) -> None:
        """Build the projections.

        Args:
            width: Size of each token vector; must be divisible by `num_heads`.
            num_heads: Number of heads.
            dropout: Fraction of attention weights dropped in training.
            bias: Whether queries, keys and values have biases; the projection back always has one.
            key_bias: Whether keys have one where queries and values do (BEiT's have none).
        """
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias and key_bias)
        self.query_value_bias = None if key_bias or not bias else nn.Parameter(torch.zeros(2, width))
        self.out = nn.Linear(width, width)

    def forward(
        self,
        tokens: Float[Tensor, "batch token dim"],
        mask: Bool[Tensor, "batch token"] | None = None,
        causal: bool = False,
        bias: Float[Tensor, "head token key"] | None = None,
        places: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch query dim"]:
        """Mix the tokens; positions where `mask` is False are not attended to.

        `bias` is added to each head's scores; with it every token sees every other. With `places` only
        the token there asks in each row, and the others' queries are not computed.
        """
        assert bias is None or (mask is None and not causal)
        if places is not None and bias is None and self.query_value_bias is None:
            return self._asked(tokens, mask, causal, places)
        query, key, value = self._projected(tokens)
        mixed = attend(
            query,
            key,
            value,
            mask=_allowed(mask, causal, tokens.shape[1]) if bias is None else bias.to(query.dtype),
            causal=causal and mask is None,
            dropout=self.dropout if self.training else 0.0,
            learns=self.training,
        )
        mixed = rearrange(mixed, "batch head token dim -> batch token (head dim)")
        return self.out(mixed if places is None else tokens_at(mixed, places))

    def _asked(
        self,
        tokens: Float[Tensor, "batch token dim"],
        mask: Bool[Tensor, "batch token"] | None,
        causal: bool,
        places: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch 1 dim"]:
        """What the tokens at the places gather."""
        width = tokens.shape[2]
        bias = self.qkv.bias
        first, rest = (None, None) if bias is None else (bias[:width], bias[width:])
        query = rearrange(
            functional.linear(tokens_at(tokens, places), self.qkv.weight[:width], first),
            "batch 1 (head dim) -> batch head 1 dim",
            head=self.num_heads,
        )
        key, value = rearrange(
            functional.linear(tokens, self.qkv.weight[width:], rest),
            "batch token (two head dim) -> two batch head token dim",
            two=2,
            head=self.num_heads,
        )
        if causal:
            past = torch.arange(tokens.shape[1], device=places.device) <= places.unsqueeze(1)
            mask = past if mask is None else mask & past
        seen = None if mask is None else rearrange(mask, "batch token -> batch 1 1 token")
        dropped = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask=seen, dropout=dropped, learns=self.training)
        return self.out(rearrange(mixed, "batch head 1 dim -> batch 1 (head dim)"))

    def weights(
        self, tokens: Float[Tensor, "batch token dim"], bias: Float[Tensor, "head token key"] | None = None
    ) -> Float[Tensor, "batch head token key"]:
        """How much each token takes from each, as shares that add up to 1 over the keys."""
        query, key, _ = self._projected(tokens)
        scores = einsum(query, key, "batch head token dim, batch head key dim -> batch head token key")
        scores = scores / key.shape[-1] ** 0.5
        return (scores if bias is None else scores + bias).softmax(dim=-1)

    def _projected(
        self, tokens: Float[Tensor, "batch token dim"]
    ) -> Float[Tensor, "three batch head token width"]:
        return rearrange(
            self.qkv(tokens) if self.query_value_bias is None else self.qkv(tokens) + self._bias(),
            "batch token (three head dim) -> three batch head token dim",
            three=3,
            head=self.num_heads,
        )

    def _bias(self) -> Float[Tensor, " dim"]:
        assert self.query_value_bias is not None
        query, value = self.query_value_bias
        return torch.cat([query, torch.zeros_like(query), value])


def tokens_at(
    tokens: Float[Tensor, "batch token dim"], places: Int[Tensor, " batch"]
) -> Float[Tensor, "batch 1 dim"]:
    """One token of each row."""
    index = rearrange(places, "batch -> batch 1 1").expand(-1, 1, tokens.shape[2])
    return tokens.gather(1, index)


def _allowed(
    mask: Bool[Tensor, "batch token"] | None, causal: bool, num_tokens: int
) -> Bool[Tensor, "batch 1 query token"] | None:
    if mask is None:
        return None
    allowed = rearrange(mask, "batch token -> batch 1 1 token").expand(-1, 1, num_tokens, -1)
    if not causal:
        return allowed
    past = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=mask.device).tril()
    return allowed & past


class CrossAttention(nn.Module):
    """Queries read from another sequence; no biases in the Perceiver resampler (Alayrac et al., 2022, Figure 5)."""

    def __init__(
        self, *, width: int, context_width: int, num_heads: int, head_width: int, bias: bool = False
    ) -> None:
        """Build projections to `num_heads * head_width` and back to `width`.

        Args:
            width: Size of the queries and of what comes out.
            context_width: Size of the tokens that are read.
            num_heads: Number of heads.
            head_width: Size of one head.
            bias: Whether the four projections have biases.
        """
        super().__init__()
        inner = num_heads * head_width
        self.num_heads = num_heads
        self.query = nn.Linear(width, inner, bias=bias)
        self.key_value = nn.Linear(context_width, 2 * inner, bias=bias)
        self.out = nn.Linear(inner, width, bias=bias)

    def keys_and_values(
        self, context: Float[Tensor, "batch token context_dim"]
    ) -> tuple[Float[Tensor, "batch head token dim"], Float[Tensor, "batch head token dim"]]:
        """What queries read; a context that stays the same over many calls needs this only once."""
        key, value = rearrange(
            self.key_value(context),
            "batch token (two head dim) -> two batch head token dim",
            two=2,
            head=self.num_heads,
        )
        return key, value

    def read(
        self,
        queries: Float[Tensor, "batch query width"],
        key: Float[Tensor, "batch head token dim"],
        value: Float[Tensor, "batch head token dim"],
        seen: Bool[Tensor, "batch query token"] | None = None,
    ) -> Float[Tensor, "batch query width"]:
        """Let each query read the tokens that it sees; each must see at least one."""
        query = rearrange(
            self.query(queries), "batch query (head dim) -> batch head query dim", head=self.num_heads
        )
        mask = None if seen is None else rearrange(seen, "batch query token -> batch 1 query token")
        mixed = attend(query, key, value, mask=mask, learns=self.training)
        return self.out(rearrange(mixed, "batch head query dim -> batch query (head dim)"))

    def forward(
        self,
        queries: Float[Tensor, "batch query width"],
        context: Float[Tensor, "batch token context_dim"],
        mask: Bool[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch query width"]:
        """Let each query read the context; context positions where `mask` is False are not seen."""
        seen = None
        if mask is not None:
            seen = rearrange(mask, "batch token -> batch 1 token").expand(-1, queries.shape[1], -1)
        return self.read(queries, *self.keys_and_values(context), seen)
