"""What computes something else than a LLaVA folder is not filled from it, although its names and shapes fit."""

from pathlib import Path

import pytest
import torch
from llava_folders import compare, folder_of
from llava_twins import GRIDS, LLAMA, MISTRAL, llava, llava_next, random_twin
from transformers import LlamaConfig, LlamaForCausalLM

from isthmus.core.errors import CheckpointError
from isthmus.core.sizes import Size
from isthmus.interop.llava import load_llava
from isthmus.parts.checkpoints import PretrainedSource


def test_what_computes_something_else_is_refused_although_every_shape_fits(tmp_path: Path) -> None:
    network = llava_next()
    network.config.vision_config.hidden_act = "gelu"
    network.config.text_config.rms_norm_eps = 1e-3
    network.config.projector_hidden_act = "relu"
    network.config.vision_feature_select_strategy = "full"
    network.config.vision_feature_layer = -1
    source = folder_of(network, tmp_path / "llava")
    with pytest.raises(CheckpointError) as caught:
        load_llava(random_twin(llava_next(), tmp_path), source, grids=(Size(1, 2),))
    for said in (
        "vision.hidden_act is gelu, the model has quick_gelu",
        "language.rms_norm_eps is 0.001, the model has 1e-06",
        "the connector's activation is 'relu'",
        "vision features are 'all', the model has 'patches'",
        "vision features are those of layer -1 of 3, the model has layer 2",
        "image_grid_pinpoints are [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]], the model has [[16, 32]]",
    ):
        assert said in str(caught.value)


def test_another_family_with_the_same_names_and_shapes_is_refused(tmp_path: Path) -> None:
    source = folder_of(llava(text=MISTRAL), tmp_path / "llava")
    with pytest.raises(CheckpointError, match=r"language\.model_type is mistral, the model has llama"):
        load_llava(random_twin(llava(), tmp_path), source)


def test_a_head_of_its_own_never_overwrites_the_table_that_it_is_tied_to(tmp_path: Path) -> None:
    tied = LlamaConfig(**LLAMA.to_dict() | {"tie_word_embeddings": True})
    model = random_twin(llava(text=tied), tmp_path)
    before = model.language.token_embeddings.weight.clone()
    source = folder_of(llava(), tmp_path / "llava")
    with pytest.raises(
        CheckpointError, match="its output head is a matrix of its own, the model's is its table"
    ):
        load_llava(model, source)
    assert torch.equal(model.language.token_embeddings.weight, before)
    network = llava(text=tied)
    load_llava(model, folder_of(network, tmp_path / "tied"))
    compare(network, model)
    load_llava(random_twin(llava(), tmp_path), PretrainedSource(name=str(tmp_path / "tied")))


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    LlamaForCausalLM(llava().config.text_config).save_pretrained(tmp_path / "llama")
    with pytest.raises(CheckpointError, match="holds a 'llama'; expected one of llava, llava_next"):
        load_llava(random_twin(llava(), tmp_path), PretrainedSource(name=str(tmp_path / "llama")))
    source = folder_of(llava(), tmp_path / "whole")
    with pytest.raises(CheckpointError, match="looks at pictures as a whole, the model cuts them into tiles"):
        load_llava(random_twin(llava_next(), tmp_path), source, grids=GRIDS)
