"""Recomputed layers: counted in frozen models, same gradients, same dropout, less kept; modes stay what they are."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from isthmus.core.batch import Batch
from isthmus.core.errors import RecipeError
from isthmus.core.protocols import Progress
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.objectives.next_token import NextToken
from isthmus.parts.connectors.mlp import MLPConnector
from isthmus.parts.language.language_model import LanguageModel
from isthmus.parts.language.lora import LoraSettings, add_lora
from isthmus.parts.recomputation import repeated_layers
from isthmus.parts.vision.vit import ViT
from isthmus.training.parameters import set_modes, set_trainable
from isthmus.training.recomputation import recompute_activations

LAYERS = 3
ROWS = [[1, *[50] * 4, 7, 8, 9], [1, *[50] * 4, 5, 6, 4]]


def llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        attention_dropout=0.3,
    )
    return LlamaForCausalLM(config)


def gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=LAYERS, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


def opt() -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=50,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=16,
        dropout=0.3,
    )
    return OPTForCausalLM(config)


def falcon() -> PreTrainedModel:
    config = FalconConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        hidden_dropout=0.3,
        attention_dropout=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return FalconForCausalLM(config)


FAMILIES = {"llama": llama, "gpt2": gpt2, "opt": opt, "falcon": falcon}


def model_of(family: str, *, lora: bool = False) -> VisionLanguageModel:
    torch.manual_seed(0)
    network = FAMILIES[family]()
    update = None
    if lora:
        target = {"llama": "q_proj", "gpt2": "c_attn", "opt": "q_proj", "falcon": "query_key_value"}[family]
        update = add_lora(network, LoraSettings(rank=2, alpha=4, targets=(target,), dropout=0.5))
    vision = ViT(image_size=16, patch=8, shape=TransformerShape(width=16, num_layers=2, num_heads=2))
    return VisionLanguageModel(
        vision=vision,
        connector=MLPConnector(vision_width=16, language_width=16),
        language=LanguageModel(network=network),
        placeholder_id=50,
        lora=update,
    )


def batch() -> Batch:
    ids = torch.tensor(ROWS)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(
        sample_ids=("a", "b"),
        pixels=pixels,
        token_ids=ids,
        attention_mask=torch.ones_like(ids, dtype=torch.bool),
        targets=ids.masked_fill(ids == 50, -100),
    )


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[bool]]:
    """The mode of the module at each of its forward calls."""
    modes: list[bool] = []
    handle = module.register_forward_pre_hook(lambda self, _: modes.append(self.training))
    yield modes
    handle.remove()


def gradients(model: VisionLanguageModel) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step, dropout drawn from a fixed seed."""
    torch.manual_seed(5)
    model.zero_grad()
    rows = batch()
    term = NextToken(model)(model.encode(rows), rows, Progress(step=0, num_steps=1))["next_token"]
    (term.sum / term.count).backward()
    return term.sum.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def attention_of(model: VisionLanguageModel) -> nn.Module:
    """The attention inside the second decoder layer: it runs whenever the layer's own code runs."""
    layer = repeated_layers(model.language)[1]
    names = ("self_attn", "attn", "self_attention")
    return next(module for name, module in layer.named_children() if name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_language_model_runs_twice_and_stays_in_eval_mode(family: str) -> None:
    model = model_of(family)
    set_trainable(model, ["connector"])
    set_modes(model)
    with calls_of(attention_of(model)) as kept:
        loss, before = gradients(model)
    assert kept == [False]
    assert recompute_activations(model, ["language"]) == LAYERS
    set_modes(model)
    assert not any(module.training for module in model.language.modules())
    assert model.connector.training
    with calls_of(attention_of(model)) as twice:
        again, after = gradients(model)
    assert twice == [False, False]
    assert again == loss
    assert before.keys() == after.keys()
    # The same sums in the same order: bit for bit. A dropout that came alive would change the loss by about 1%.
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert recompute_activations(model, []) == 0
    with calls_of(attention_of(model)) as kept:
        gradients(model)
    assert kept == [False]


def test_transformers_own_switch_does_nothing_in_eval_mode() -> None:
    """Why `forward` is replaced; where this fails, the reason is gone."""
    model = model_of("llama")
    set_trainable(model, ["connector"])
    set_modes(model)
    model.language.network.activation_checkpointing_enable()
    with calls_of(attention_of(model)) as calls:
        gradients(model)
    assert calls == [False]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_update_with_dropout_learns_the_same(family: str) -> None:
    model = model_of(family, lora=True)
    set_trainable(model, ["connector", "lora"])
    set_modes(model)
    loss, before = gradients(model)
    recompute_activations(model, ["language"])
    again, after = gradients(model)
    assert again == loss
    assert sum("lora_B" in name for name in before) == LAYERS
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dropout_that_learns_draws_the_same_numbers_twice() -> None:
    model = model_of("opt")
    set_trainable(model, ["connector", "language", "vision"])
    set_modes(model)
    loss, before = gradients(model)
    assert recompute_activations(model, ["language", "vision"]) == LAYERS + 2
    with calls_of(repeated_layers(model.vision)[0].attention) as twice:
        again, after = gradients(model)
    assert twice == [True, True]
    assert again == loss
    assert all(torch.equal(before[name], after[name]) for name in before)


def kept_numbers(model: VisionLanguageModel) -> int:
    """How many numbers the forward pass keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.encode(batch()).hidden
    del hidden
    return sum(kept.values())


def test_less_is_kept() -> None:
    model = model_of("llama")
    set_trainable(model, ["connector"])
    set_modes(model)
    before = kept_numbers(model)
    recompute_activations(model, ["language"])
    # Measured: 10,324 numbers before and 1,428 after.
    assert kept_numbers(model) < before / 3


def test_nothing_is_recomputed_without_gradients() -> None:
    model = model_of("llama").eval()
    recompute_activations(model, ["language"])
    with torch.no_grad(), calls_of(attention_of(model)) as calls:
        model.encode(batch())
    assert len(calls) == 1


def test_a_copy_recomputes_its_own_layers() -> None:
    model = model_of("llama")
    recompute_activations(model, ["language"])
    twin = copy.deepcopy(model)
    with torch.no_grad():
        repeated_layers(twin.language)[0].self_attn.q_proj.weight.mul_(3)
        repeated_layers(twin.language)[0].self_attn.v_proj.weight.mul_(3)
    assert gradients(twin)[0] != gradients(model)[0]


def test_parts_that_are_no_stack_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"part 'connector' is no stack .* that can: vision, language$"):
        recompute_activations(model_of("llama"), ["connector"])
