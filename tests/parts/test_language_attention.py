"""Our own language models' attention: the numbers of transformers' layers, and a checkpoint that does not name it."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from isthmus.parts.language.language_model import LlamaShape, build_llama

SHAPE = LlamaShape(vocabulary=50, width=128, num_layers=2, num_heads=8, num_kv_heads=4, ffn=64, context=16)


def _twins() -> tuple[PreTrainedModel, PreTrainedModel]:
    torch.manual_seed(0)
    ours = build_llama(SHAPE)
    theirs = build_llama(SHAPE)
    theirs.load_state_dict(ours.state_dict())
    theirs.set_attn_implementation("eager")
    return ours.train(), theirs.train()


def _learnt(network: PreTrainedModel, mask: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    ids = torch.randint(SHAPE.vocabulary, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    real = torch.ones_like(ids) if mask is None else mask
    (
        (logits * torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)) * real[..., None]
    ).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [logits.detach()[real.bool()], *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("padded", [None, "left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_what_the_eager_layers_of_transformers_learn(
    padded: str | None, dtype: torch.dtype
) -> None:
    mask = None
    if padded is not None:
        mask = torch.ones(3, 12, dtype=torch.long)
        mask[1, slice(0, 5) if padded == "left" else slice(7, None)] = 0
    ours, theirs = (_learnt(network, mask, dtype) for network in _twins())
    for one, other in zip(ours, theirs, strict=True):
        difference = (one - other).abs().max() / other.abs().max()
        # Measured, relative to the largest number: 1.1e-6; 0.023 in bf16.
        assert difference < (1e-5 if dtype == torch.float32 else 0.05)


def test_a_checkpoint_is_transformers_own(tmp_path: Path) -> None:
    network = build_llama(SHAPE).eval()
    network.save_pretrained(tmp_path)
    assert "isthmus" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    read = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(10)[None]
    assert torch.equal(read(input_ids=ids).logits, network(input_ids=ids).logits)
