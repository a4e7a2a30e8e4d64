"""Scaled dot-product attention (Vaswani et al., 2017, section 3.2), by whichever kernel is the faster one here."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

LONGEST = 256
"""Above so many keys the fused kernel's memory counts for more than its time."""


def attend(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    value: Float[Tensor, "batch head key dim"],
    *,
    mask: Bool[Tensor, "*rows query key"] | Float[Tensor, "*rows query key"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    learns: bool,
) -> Float[Tensor, "batch head query dim"]:
    """Mix the values by softmax of the scaled products of queries and keys.

    PyTorch's fused kernel, except where bf16 learns on a processor: forward and backward of the fused one takes 4 times
    as long there as two matrix products with a softmax of 32 bits between them (16 x 12 heads of 50 tokens, 64 wide:
    31 against 7 ms on one thread; of 197 tokens 140 against 62).

    Args:
        query: What asks.
        key: What is compared with it.
        value: What is mixed.
        mask: True where a query may look, or numbers added to the scaled products; null: everywhere.
        causal: Whether a query sees only keys up to its own place; not beside a mask.
        dropout: Fraction of attention weights dropped.
        learns: Whether the layer is in training mode. Not whether gradients are on: the first pass of cached gradients
            runs without them and has to give what the second one gives, bit for bit.
    """
    assert mask is None or not causal
    if not learns or fused_is_faster(query, key):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        # The least number instead of minus infinity, so that a padded query, which sees nothing, gets no NaN.
        hidden = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, hidden) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    if mask is not None and mask.dtype == torch.bool:
        weights = weights.masked_fill(~mask, 0.0)  # such a query gets zeros, as from the fused kernel
    return functional.dropout(weights, dropout) @ value


def fused_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether PyTorch's fused kernel learns at least as fast as matrix products do."""
    return query.device.type != "cpu" or query.dtype != torch.bfloat16 or key.shape[-2] > LONGEST
