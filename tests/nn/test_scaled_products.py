"""Attention by matrix products, for bf16 that learns on a processor, beside PyTorch's fused kernel in 32 bits."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isthmus.nn import scaled_products
from isthmus.nn.scaled_products import attend
from isthmus.nn.transformer import Transformer, TransformerShape

CLOSE = 0.03
"""Largest differences seen from 32 bits, values and gradients between 0 and 4: products 0.016, the fused kernel 0.016."""


def _inputs(num_keys: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((2, 4, 9, 32), (2, 4, num_keys, 32), (2, 4, num_keys, 32))
    query, key, value = (torch.randn(shape).bfloat16().requires_grad_() for shape in shapes)
    return query, key, value


def _with_gradients(mixed: Tensor, *inputs: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, mixed.numel()).reshape(mixed.shape)
    return [
        mixed.float(),
        *(one.float() for one in torch.autograd.grad((mixed.float() * weights).sum(), inputs)),
    ]


def _masks() -> dict[str, Tensor | None]:
    allowed = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(1)) > 0.4
    allowed[..., 0] = True
    return {"none": None, "allowed": allowed, "bias": torch.linspace(-2, 2, 4 * 81).reshape(4, 9, 9)}


@pytest.mark.parametrize("mask", ["none", "allowed", "bias"])
def test_bf16_that_learns_equals_the_fused_kernel_in_32_bits(mask: str) -> None:
    query, key, value = _inputs()
    given = _masks()[mask]
    ours = attend(
        query, key, value, mask=given if mask != "bias" or given is None else given.bfloat16(), learns=True
    )
    plain = [one.detach().float().requires_grad_() for one in (query, key, value)]
    theirs = functional.scaled_dot_product_attention(plain[0], plain[1], plain[2], attn_mask=given)
    assert ours.dtype == torch.bfloat16
    for one, other in zip(
        _with_gradients(ours, query, key, value), _with_gradients(theirs, *plain), strict=True
    ):
        assert (one - other).abs().max() < CLOSE


def test_bf16_that_learns_is_causal() -> None:
    query, key, value = _inputs()
    ours = attend(query, key, value, causal=True, learns=True)
    theirs = functional.scaled_dot_product_attention(
        query.detach().float(), key.detach().float(), value.detach().float(), is_causal=True
    )
    assert (ours.float() - theirs).abs().max() < CLOSE
    (seen,) = torch.autograd.grad(ours[:, :, 3].float().sum(), value)
    assert seen[:, :, 4:].abs().max() == 0
    assert seen[:, :, :4].abs().min() > 0


def test_a_query_that_sees_nothing_gets_zeros_and_no_nan() -> None:
    query, key, value = _inputs()
    allowed = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    allowed[0, :, 0] = False
    found = _with_gradients(attend(query, key, value, mask=allowed, learns=True), query, key, value)
    assert all(one.isfinite().all() for one in found)
    assert found[0][0, :, 0].abs().max() == 0
    assert found[0][0, :, 1].abs().min() > 0


def test_dropout_leaves_the_mean_as_it_is() -> None:
    query, key, value = (one.detach().expand(500, 4, 9, 32).clone() for one in (x[:1] for x in _inputs()))
    kept = attend(query.requires_grad_(), key, value, dropout=0.5, learns=True).float().mean(0)
    whole = attend(query, key, value, learns=True).float().mean(0)
    # The spread of a dropped mixture is below 1, so that of a mean of 500 below 0.045.
    assert (kept - whole).abs().max() < 5 * 0.045
    assert (kept - whole).abs().max() > 0


@pytest.mark.parametrize(
    ("num_keys", "learns", "fused"), [(9, True, False), (300, True, True), (9, False, True)]
)
def test_the_kernel_is_chosen_by_what_is_faster(
    num_keys: int, learns: bool, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kernel = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        scaled_products.functional,
        "scaled_dot_product_attention",
        lambda *given, **named: calls.append(1) or kernel(*given, **named),
    )
    for gradients in (True, False):
        calls.clear()
        with torch.set_grad_enabled(gradients):
            attend(*_inputs(num_keys), learns=learns)
        assert bool(calls) is fused, "both passes of cached gradients take the same one"


def test_both_passes_of_cached_gradients_give_the_same_bits() -> None:
    torch.manual_seed(0)
    transformer = Transformer(TransformerShape(width=64, num_layers=2, num_heads=4)).train()
    tokens = torch.randn(4, 9, 64)
    with torch.autocast("cpu", torch.bfloat16):
        second = transformer(tokens)
        with torch.no_grad():
            first = transformer(tokens)
    assert torch.equal(first, second)
    assert second.requires_grad
