"""Low-rank updates: merged and unmerged agree, folders go to peft and back, wrong targets are named."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from isthmus.parts.language.lora import LoraSettings, LoraUpdate, add_lora, merge_lora, read_lora

ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = torch.tensor([[1, 5, 9, 2, 7, 3]])


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=16, n_embd=24, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


CASES = [
    (llama, LoraSettings(rank=3, alpha=6, targets=ALL_SEVEN)),
    (gpt2, LoraSettings(rank=3, alpha=6, targets=("c_attn", "mlp.c_proj"))),
]
IDENTIFIERS = ["llama", "gpt2"]


@torch.no_grad()
def learnt(network: PreTrainedModel, settings: LoraSettings) -> LoraUpdate:
    """An update whose B is not zero any more."""
    update = add_lora(network, settings)
    torch.manual_seed(1)
    for tensor in update.tensors().values():
        tensor.copy_(torch.randn_like(tensor) * 0.1)
    return update


@torch.no_grad()
def logits(network: torch.nn.Module) -> Tensor:
    return network.eval()(input_ids=IDS).logits


@pytest.mark.parametrize(("made", "settings"), CASES, ids=IDENTIFIERS)
def test_merged_equals_unmerged(made: type, settings: LoraSettings) -> None:
    network, plain = made(), logits(made())
    assert torch.equal(logits(network), plain)
    update = learnt(network, settings)
    unmerged = logits(network)
    assert (unmerged - plain).abs().max() > 1e-2
    names = set(made().state_dict())
    assert merge_lora(network) == len(update.names)
    assert set(network.state_dict()) == names
    # fp32, width 24, two layers: 9e-8 was measured for both.
    assert (logits(network) - unmerged).abs().max() < 1e-6


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks
@pytest.mark.parametrize(("made", "settings"), CASES, ids=IDENTIFIERS)
def test_peft_reads_what_we_write(made: type, settings: LoraSettings, tmp_path: Path) -> None:
    network = made()
    update = learnt(network, settings)
    update.save(tmp_path / "update")
    assert sorted(path.name for path in (tmp_path / "update").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    theirs = PeftModel.from_pretrained(made(), tmp_path / "update")
    assert torch.equal(logits(theirs), logits(network))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks
@pytest.mark.parametrize(("made", "settings"), CASES, ids=IDENTIFIERS)
def test_we_read_what_peft_writes(made: type, settings: LoraSettings, tmp_path: Path) -> None:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.targets),
        lora_dropout=0.1,
        fan_in_fan_out=made is gpt2,
        init_lora_weights=False,
    )
    theirs = get_peft_model(made(), config)
    theirs.save_pretrained(tmp_path)
    found, tensors = read_lora(tmp_path)
    assert found == LoraSettings(
        rank=settings.rank, alpha=settings.alpha, targets=tuple(sorted(settings.targets)), dropout=0.1
    )
    network = made()
    ours = add_lora(network, found).tensors()
    assert ours.keys() == tensors.keys()
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(tensors[name])
    assert torch.equal(logits(network), logits(theirs))


def test_the_count_of_seven_updates() -> None:
    """rank x (in + out) for each of the seven matrices, as the paper counts."""
    update = add_lora(llama(), LoraSettings(rank=3, alpha=6, targets=ALL_SEVEN))
    a_layer = 3 * ((24 + 24) + (24 + 12) + (24 + 12) + (24 + 24) + 3 * (24 + 48))
    assert sum(parameter.numel() for parameter in update.parameters()) == 2 * a_layer


def test_llama_3_with_rank_64_has_the_published_count() -> None:
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
        assert sum(parameter.numel() for parameter in network.parameters()) == 8_030_261_248
        update = add_lora(network, LoraSettings(rank=64, alpha=16, targets=ALL_SEVEN, dropout=0.05))
    assert sum(parameter.numel() for parameter in update.parameters()) == 167_772_160


def test_ends_of_paths_choose_among_layers_of_one_name() -> None:
    update = add_lora(gpt2(), LoraSettings(rank=2, alpha=2, targets=("mlp.c_proj",)))
    assert update.names == ("transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj")


def test_targets_that_match_nothing_are_refused_with_what_exists() -> None:
    known = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(
        ValueError, match=f"LoRA targets qproj, rms match no linear layer; this model has {known}$"
    ):
        add_lora(llama(), LoraSettings(rank=2, alpha=2, targets=("q_proj", "qproj", "rms")))
    # A norm exists, but it is no linear layer.
    with pytest.raises(
        ValueError, match="LoRA targets ln_1 match no linear layer; this model has c_attn, c_fc, c_proj"
    ):
        add_lora(gpt2(), LoraSettings(rank=2, alpha=2, targets=("ln_1",)))
    with pytest.raises(ValueError, match="two layouts"):
        add_lora(gpt2(), LoraSettings(rank=2, alpha=2, targets=("c_attn", "lm_head")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "holds the PEFT type 'IA3'; expected 'LORA'"),
        ({"use_dora": True, "bias": "all"}, "uses use_dora, bias, which is not built here"),
        ({"target_modules": "all-linear"}, "has the target_modules 'all-linear'; expected a list"),
        ({"r": "3"}, "lacks the numbers r, lora_alpha or lora_dropout"),
    ],
)
def test_folders_of_another_kind_are_refused(change: dict, said: str, tmp_path: Path) -> None:
    learnt(llama(), LoraSettings(rank=2, alpha=2, targets=("q_proj",))).save(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        read_lora(tmp_path)


def test_missing_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no PEFT folder"):
        read_lora(tmp_path / "none")
    learnt(llama(), LoraSettings(rank=2, alpha=2, targets=("q_proj",))).save(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        read_lora(tmp_path)
