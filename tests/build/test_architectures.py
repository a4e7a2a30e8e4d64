"""The cards of hub models: each builds on the meta device and has as many parameters as were published."""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, Blip2Model

from isthmus.build.model import build_model
from isthmus.build.names import CARDS, card_file
from isthmus.config.load import parse_recipe
from isthmus.core.errors import MachineError
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.parts.language.encoder_decoder import load_encoder_decoder

# Whole models as published: CLIP and SigLIP with their text encoders and scalars (papers' code and model cards), ViT,
# BEiT, DINOv2, ConvNeXt and MobileNetV2 without a classifier (ViT with the pooling layer of transformers), language
# models with their output head, tied ones counted once.
PUBLISHED = {
    "openai/clip-vit-base-patch32": 151_277_313,
    "openai/clip-vit-base-patch16": 149_620_737,
    "openai/clip-vit-large-patch14": 427_616_513,
    "openai/clip-vit-large-patch14-336": 427_944_193,
    "google/siglip-base-patch16-224": 203_155_970,
    "google/siglip-base-patch16-256": 203_202_050,
    "google/siglip-base-patch16-384": 203_447_810,
    "google/siglip-base-patch16-512": 203_791_874,
    "google/siglip-large-patch16-256": 652_150_786,
    "google/siglip-large-patch16-384": 652_478_466,
    "google/siglip-so400m-patch14-224": 877_360_306,
    "google/siglip-so400m-patch14-384": 877_960_498,
    "facebook/dinov2-small": 22_056_576,
    "facebook/dinov2-base": 86_580_480,
    "facebook/dinov2-large": 304_368_640,
    "google/vit-base-patch16-224": 86_389_248,
    "google/vit-base-patch16-224-in21k": 86_389_248,
    "microsoft/beit-base-patch16-224": 86_530_984 - 769_000,
    "microsoft/beit-base-patch16-224-pt22k": 85_666_128,
    "facebook/convnext-tiny-224": 28_589_128 - 769_000,
    "facebook/convnext-small-224": 50_223_688 - 769_000,
    "facebook/convnext-base-224": 88_591_464 - 1_025_000,
    "google/mobilenet_v2_1.0_224": 3_504_872 - 1_281_000,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-xl": 1_557_611_200,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-2b-it": 2_506_172_416,
    "lmsys/vicuna-7b-v1.3": 6_738_415_616,
    "lmsys/vicuna-13b-v1.3": 13_015_864_320,
    "lmsys/vicuna-7b-v1.5": 6_738_415_616,
    "lmsys/vicuna-13b-v1.5": 13_015_864_320,
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-chat-hf": 13_015_864_320,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "NousResearch/Nous-Hermes-2-Yi-34B": 34_388_917_248,
    "mosaicml/mpt-7b": 6_649_286_656,
    "togethercomputer/RedPajama-INCITE-Base-3B-v1": 2_775_864_320,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "facebook/opt-2.7b": 2_651_596_800,
    "facebook/opt-6.7b": 6_658_473_984,
    "google/flan-t5-xl": 2_849_757_184,
    "Salesforce/blip2-opt-2.7b": 3_744_679_936,
    "google-bert/bert-base-uncased": 109_482_240,
}
LANGUAGE = {"gpt2", "llama", "mistral", "gemma", "mpt", "gpt_neox", "opt"}
VISION_ONLY = {
    "openai/clip-vit-base-patch32": 87_456_000,
    "openai/clip-vit-base-patch16": 85_799_424,
    "openai/clip-vit-large-patch14": 303_179_776,
    "openai/clip-vit-large-patch14-336": 303_507_456,
    "google/siglip-base-patch16-384": 93_176_064,
    "google/siglip-so400m-patch14-384": 428_225_600,
}


def source_of_card(name: str) -> PretrainedSource:
    return PretrainedSource(name=name, random=True, card=card_file(name))


def test_every_card_has_a_published_count() -> None:
    assert {card_file(name).name for name in PUBLISHED} == {file.name for file in CARDS.iterdir()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_builds_what_was_published(name: str) -> None:
    source = source_of_card(name)
    kind = AutoModelForCausalLM if load_configuration(source).model_type in LANGUAGE else AutoModel
    with torch.device("meta"):
        if load_configuration(source).model_type == "t5":
            network = load_encoder_decoder(source)
        elif load_configuration(source).model_type == "blip-2":
            network = Blip2Model(load_configuration(source))
        else:
            network = load_network(kind, source)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]
    if name in VISION_ONLY:
        vision = network.get_submodule("vision_model")
        assert sum(parameter.numel() for parameter in vision.parameters()) == VISION_ONLY[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_says_nothing_that_transformers_does_not_read(name: str) -> None:
    card = json.loads(card_file(name).read_text(encoding="utf-8"))
    config = load_configuration(source_of_card(name)).to_dict()
    # Rotary settings are read under their published names and kept together.
    read_elsewhere = {"rope_theta", "rotary_pct", "rotary_emb_base"}
    for key in card.keys() - config.keys() - read_elsewhere:
        pytest.fail(f"{key} is not read")
    if "rope_theta" in card:
        assert config["rope_parameters"]["rope_theta"] == card["rope_theta"]
    for block in ("text_config", "vision_config", "attn_config"):
        assert card.get(block, {}).keys() <= config.get(block, {}).keys()


RECIPE = """\
name: joined
data: {photos: {kind: folder, path: photos}}
model:
  kind: vision_language_model
  vision: {kind: pretrained, name: VISION, final_norm: false}
  connector: {kind: mlp, depth: 2}
  language: {kind: pretrained, name: lmsys/vicuna-7b-v1.5}
stages:
  - {kind: train, name: align, train: [connector], objective: {next_token: 1.0}, data: photos, rows: captions,
     epochs: 1, batch_size: 8, optimizer: {lr: 1.0e-3}}
"""


def test_true_sizes_are_shown_without_network_or_weights() -> None:
    model = parse_recipe(RECIPE.replace("VISION", "openai/clip-vit-large-patch14-336"), "test").model
    built = build_model(model, weights="random", device="meta")
    counts = {name: sum(one.numel() for one in part.parameters()) for name, part in built.parts().items()}
    assert counts == {"vision": 303_507_456, "connector": 20_979_712, "language": 6_738_415_616}
    assert all(parameter.is_meta for parameter in built.parameters())


def test_what_needs_weights_says_what_to_do() -> None:
    model = parse_recipe(RECIPE.replace("VISION", "openai/clip-vit-large-patch14-336"), "test").model
    with pytest.raises(
        MachineError, match=r"clip-vit-large-patch14-336' is not on this machine.*--allow-network"
    ):
        build_model(model)


def test_a_hub_model_without_a_card_says_how_to_add_one() -> None:
    model = parse_recipe(RECIPE.replace("VISION", "nobody/sees-nothing"), "test").model
    with pytest.raises(
        MachineError, match=r"no card of 'nobody/sees-nothing'.*architectures/nobody--sees-nothing\.json"
    ):
        build_model(model, weights="random", device="meta")
