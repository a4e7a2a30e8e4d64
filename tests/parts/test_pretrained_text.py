"""A BERT as a text encoder: transformers' own numbers on the same random weights, read from a folder."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertForPreTraining

from isthmus.core.errors import CheckpointError
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.language.pretrained_text import PretrainedTextEncoder, load_text_network

WIDTH, WORDS, POSITIONS = 24, 40, 12
CLOSE = 1e-5
"""Largest difference of entries up to 3.3; measured 2.1e-6 (padding changes the order of sums)."""


def twin() -> BertForPreTraining:
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
    )
    torch.manual_seed(0)
    made = BertForPreTraining(config).eval()
    for name, parameter in made.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if name.endswith("LayerNorm.weight") else 0.0, std=0.3)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub's BERTs are: heads beside the encoder, and the old names of norms."""
    made = tmp_path_factory.mktemp("bert")
    whole = twin()
    whole.config.save_pretrained(made)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in whole.state_dict().items():
        for new, before in old.items():
            name = name.replace(new, before)
        tensors[name] = tensor.clone()
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    return made


def encoder(folder: Path, pool: str = "first", *, context: int = POSITIONS) -> PretrainedTextEncoder:
    network = load_text_network(PretrainedSource(name=str(folder)))
    made = PretrainedTextEncoder(network=network, embed_dim=WIDTH, context=context, pool=pool).eval()
    nn.init.eye_(made.projection.weight)
    return made


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(4, 9, dtype=torch.long)
    mask = torch.zeros(4, 9, dtype=torch.bool)
    for row, length in enumerate((9, 2, 5, 7)):
        ids[row, :length] = torch.randint(1, WORDS, (length,), generator=generator)
        mask[row, :length] = True
    return ids, mask


def copied(folder: Path, into: Path, **changed: object) -> PretrainedSource:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changed
    (into / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (into / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return PretrainedSource(name=str(into))


@torch.no_grad()
@pytest.mark.parametrize("pool", ["first", "mean"])
def test_it_is_transformers_bert(folder: Path, pool: str) -> None:
    ids, mask = texts()
    found = encoder(folder, pool)(ids, mask)
    theirs = twin().bert
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = theirs(input_ids=ids[row : row + 1, :length]).last_hidden_state[0]
        expected = alone[0] if pool == "first" else alone.mean(dim=0)
        assert (found[row] - expected).abs().max() < CLOSE
    assert (found[0] - found[1]).abs().max() > 0.1
    unmasked = encoder(folder, pool)(ids, torch.ones_like(mask))
    assert (found[1] - unmasked[1]).abs().max() > 100 * CLOSE, "padding is not read"


def test_the_pooling_layer_is_not_built(folder: Path) -> None:
    names = [name for name, _ in encoder(folder).named_parameters()]
    assert not [name for name in names if "pooler" in name]
    whole = sum(one.numel() for one in twin().bert.parameters())
    built = sum(one.numel() for one in encoder(folder).network.parameters())
    assert built == whole - (WIDTH * WIDTH + WIDTH)


def test_gradients_reach_words_and_projection(folder: Path) -> None:
    made = encoder(folder).train()
    made(*texts()).square().sum().backward()
    silent = [name for name, one in made.named_parameters() if one.grad is None or not one.grad.any()]
    # Keys' biases move all scores of a query alike, which softmax does not see.
    assert [name for name in silent if "key.bias" not in name] == []


def test_a_text_longer_than_the_context_or_the_positions_is_refused(folder: Path) -> None:
    ids, mask = texts()
    with pytest.raises(ValueError, match="a text has 9 tokens, but the text encoder reads at most 8"):
        encoder(folder, context=8)(ids, mask)
    with pytest.raises(ValueError, match="found 13, but the network has 12 positions"):
        encoder(folder, context=13)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"model_type": "roberta"}, "is a 'roberta'"), ({"is_decoder": True}, "is a BERT that writes")],
)
def test_another_network_is_refused(folder: Path, tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_text_network(copied(folder, tmp_path, **changed))


def test_weights_that_are_not_what_the_configuration_says_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks 16 weights that a BertModel needs"):
        load_text_network(copied(folder, tmp_path, num_hidden_layers=3))
    shapes = (
        r"have other sizes than its config.json says: .*intermediate.dense.bias is \(48,\), expected \(64,\)"
    )
    with pytest.raises(CheckpointError, match=shapes):
        load_text_network(copied(folder, tmp_path, intermediate_size=64))


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    source = copied(folder, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        CheckpointError, match=r"the files of '.*' are damaged .*SafetensorError.*; restore them"
    ):
        load_text_network(source)
