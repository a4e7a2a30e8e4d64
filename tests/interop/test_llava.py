"""LLaVA folders of every key form are read, original connector files too, and what is written transformers loads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from llava_folders import SIZES, compare, folder_of
from llava_twins import (
    GRIDS,
    IMAGE,
    VOCABULARY,
    WHOLE,
    joint_batch,
    llava,
    llava_next,
    random_twin,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from isthmus.core.errors import CheckpointError
from isthmus.interop.llava import load_connector, load_llava
from isthmus.interop.llava_folder import LlavaLayout, save_llava
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.language.lora import LoraSettings, add_lora


def renamed(folder: Path, change: Callable[[str], str]) -> None:
    """Rewrite the weights of a folder under other names."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({change(key): tensor.clone() for key, tensor in tensors.items()}, file, {"format": "pt"})


def on_the_hub(key: str) -> str:
    """As the folders on the hub were written by transformers 4: `vision_tower.vision_model.…`."""
    return key.replace("vision_tower.", "vision_tower.vision_model.")


def inside_transformers_5(key: str) -> str:
    """As modules are called in transformers 5, which other tools save as they are."""
    if key.startswith("language_model.lm_head."):
        return key.removeprefix("language_model.")
    return "model." + key.replace("language_model.model.", "language_model.")


def inside_transformers_4(key: str) -> str:
    """As modules were called in transformers 4.52 and later."""
    return inside_transformers_5(on_the_hub(key))


@pytest.mark.parametrize("make", [llava, llava_next])
@pytest.mark.parametrize("change", [str, on_the_hub, inside_transformers_5, inside_transformers_4])
def test_folders_of_every_key_form_are_read(
    tmp_path: Path, make: Callable[[], PreTrainedModel], change: Callable[[str], str]
) -> None:
    network = make()
    source = folder_of(network, tmp_path / "llava")
    before = set(load_file(tmp_path / "llava" / "model.safetensors"))
    assert {"language_model.lm_head.weight", "multi_modal_projector.linear_1.bias"} <= before
    renamed(tmp_path / "llava", change)
    model = random_twin(network, tmp_path)
    load_llava(model, source, grids=GRIDS if make is llava_next else ())
    compare(network, model)


def test_constants_that_old_folders_hold_are_no_difference(tmp_path: Path) -> None:
    network = llava()
    source = folder_of(network, tmp_path / "llava")
    file = tmp_path / "llava" / "model.safetensors"
    old = load_file(file) | {"vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_file(old, file, {"format": "pt"})
    load_llava(random_twin(network, tmp_path), source)


def original(network: PreTrainedModel, prefix: str) -> dict[str, Tensor]:
    """The connector as LLaVA's own code saves it."""
    names = {
        "linear_1": f"{prefix}mm_projector.0",
        "linear_2": f"{prefix}mm_projector.2",
        "": f"{prefix}mm_projector",
    }
    tensors = {}
    for key, tensor in network.model.multi_modal_projector.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        tensors[f"{names[layer]}.{leaf}"] = tensor
    return tensors


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize("linear", [True, False])
def test_original_connector_files_are_read(tmp_path: Path, linear: bool, prefix: str) -> None:
    network = llava(linear=linear)
    save_file(original(network, prefix), tmp_path / "mm_projector.safetensors")
    model = random_twin(network, tmp_path)
    words = model.language.embed(torch.arange(VOCABULARY)[None]).clone()
    assert load_connector(model, tmp_path / "mm_projector.safetensors") == ("connector",)
    patches = torch.randn(2, 16, 32)
    assert torch.equal(model.connector(patches), network.model.multi_modal_projector(patches))
    assert torch.equal(words, model.language.embed(torch.arange(VOCABULARY)[None]))


def test_the_original_newline_is_read_with_the_connector(tmp_path: Path) -> None:
    network = llava_next()
    tensors = original(network, "model.") | {"model.image_newline": network.model.image_newline.detach()}
    save_file(tensors, tmp_path / "mm_projector.safetensors")
    model = random_twin(network, tmp_path)
    assert load_connector(model, tmp_path / "mm_projector.safetensors") == ("connector", "newline")
    assert model.newline is not None
    assert torch.equal(model.newline.vector, network.model.image_newline)


def test_a_connector_file_that_does_not_fit_is_refused_with_every_difference(tmp_path: Path) -> None:
    network = llava()
    file = tmp_path / "mm_projector.safetensors"
    tensors = original(network, "model.")
    tensors["model.mm_projector.2.weight"] = torch.zeros(3, 3)
    del tensors["model.mm_projector.0.bias"]
    tensors |= {"model.embed_tokens.weight": torch.zeros(2, 2), "model.image_newline": torch.zeros(40)}
    save_file(tensors, file)
    model = random_twin(network, tmp_path)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_connector(model, file)
    for said in (
        "newline: the model has no such part",
        "connector: missing linear_1.bias",
        "connector: unknown model.embed_tokens.weight",
        "connector: linear_2.weight is (3, 3), expected (40, 40)",
    ):
        assert said in str(caught.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    file.write_bytes(b"no tensors at all")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_connector(model, file)


def test_a_folder_that_lacks_weights_is_refused_with_every_difference(tmp_path: Path) -> None:
    network = llava_next()
    source = folder_of(network, tmp_path / "llava")
    file = tmp_path / "llava" / "model.safetensors"
    tensors = load_file(file)
    del tensors["language_model.model.norm.weight"]
    tensors |= {"strange": torch.zeros(1), "multi_modal_projector.linear_1.weight": torch.zeros(3, 3)}
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load_llava(random_twin(network, tmp_path), source, grids=GRIDS)
    for said in (
        "missing model.language_model.norm.weight",
        "unknown strange",
        "model.multi_modal_projector.linear_1.weight is (3, 3), expected (40, 32)",
    ):
        assert said in str(caught.value)


def test_a_folder_of_another_shape_is_refused_with_every_difference(tmp_path: Path) -> None:
    small = LlamaConfig(
        vocab_size=VOCABULARY + 2,
        hidden_size=24,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    source = folder_of(llava(text=small), tmp_path / "other")
    with pytest.raises(CheckpointError) as caught:
        load_llava(random_twin(llava(), tmp_path), source)
    text = str(caught.value)
    assert "language: decoder.embed_tokens.weight is (66, 24), expected (64, 40)" in text
    assert "connector: linear_2.bias is (24,), expected (40,)" in text
    assert text.count("language: missing decoder.layers.1.") == 9


@pytest.mark.parametrize(
    ("make", "kind"),
    [(llava, LlavaForConditionalGeneration), (llava_next, LlavaNextForConditionalGeneration)],
)
def test_what_is_written_transformers_loads_with_equal_logits(
    tmp_path: Path, make: Callable[[], PreTrainedModel], kind: type[PreTrainedModel]
) -> None:
    model = random_twin(make(), tmp_path)
    grids = GRIDS if make is llava_next else ()
    save_llava(model, tmp_path / "saved", LlavaLayout(image_token_id=IMAGE, grids=grids))
    network, info = kind.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    compare(network.eval(), model)
    again = random_twin(make(), tmp_path)
    load_llava(again, PretrainedSource(name=str(tmp_path / "saved")), grids=grids)
    theirs = again.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("tied", [True, False])
def test_a_virtual_placeholder_gets_a_row_that_is_never_the_likeliest(tmp_path: Path, tied: bool) -> None:
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=tied,
    )
    model = random_twin(llava(text=text), tmp_path)
    model.placeholder_id = VOCABULARY + 3
    save_llava(model, tmp_path / "saved", LlavaLayout(image_token_id=VOCABULARY + 3))
    network = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    assert network.lm_head.weight.shape[0] == VOCABULARY + 4
    assert (network.lm_head.weight is network.model.language_model.embed_tokens.weight) == tied
    joint = joint_batch(SIZES, tiled=False, left=False, image_processor=WHOLE)
    ids = joint.theirs["input_ids"]
    moved = ids.masked_fill(ids == IMAGE, VOCABULARY + 3)
    with torch.no_grad():
        theirs = network(**joint.theirs | {"input_ids": moved, "labels": None}).logits
    ours = model.logits(replace(joint.ours, token_ids=moved))
    real = joint.ours.attention_mask
    assert (ours - theirs[..., :VOCABULARY])[real].abs().max() < 1e-6
    assert (theirs[..., VOCABULARY:] <= theirs.amax(dim=-1, keepdim=True) - 1e-4)[real].all()


def test_what_has_no_place_is_refused_with_every_reason(tmp_path: Path) -> None:
    model = random_twin(llava(linear=True), tmp_path)
    add_lora(model.language.network, LoraSettings(rank=2, alpha=4, targets=("q_proj",)))
    with pytest.raises(CheckpointError) as caught:
        save_llava(model, tmp_path / "saved", LlavaLayout(image_token_id=IMAGE, grids=GRIDS))
    for said in (
        "a connector of one linear layer has no place there",
        "low-rank updates are not merged",
        "the model has a newline exactly where pictures are cut",
    ):
        assert said in str(caught.value)


def test_weights_find_their_place_beside_low_rank_updates(tmp_path: Path) -> None:
    network = llava()
    source = folder_of(network, tmp_path / "llava")
    model = random_twin(network, tmp_path)
    add_lora(model.language.network, LoraSettings(rank=2, alpha=4, targets=("q_proj", "v_proj")))
    load_llava(model, source)
    compare(network, model)
