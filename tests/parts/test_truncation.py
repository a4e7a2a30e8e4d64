"""Encoders read at a layer: built only so far, and equal to Hugging Face's `hidden_states` bit for bit."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BeitConfig,
    BeitModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from isthmus.core.sizes import Size
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.vision.pretrained import load_vision_encoder

LAYERS = 3
PICTURE = {"image_size": 32, "patch_size": 8}
HEADS = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
SIZES = {**HEADS, "intermediate_size": 32}
TEXT = {**SIZES, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1}
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def clip() -> CLIPModel:
    vision = {**SIZES, **PICTURE, "projection_dim": 512}
    text = {**TEXT, "projection_dim": 12}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


def beit(*, shared: bool, mean: bool = False) -> BeitModel:
    kind = {"use_shared_relative_position_bias": shared, "use_relative_position_bias": not shared}
    return BeitModel(BeitConfig(**SIZES, **PICTURE, **kind, use_mean_pooling=mean))


@dataclass(frozen=True)
class Twin:
    """A small random model, its vision transformer, and what is known of it.

    `norm` names the last normalisation; `norms_tokens` says whether the last hidden states went through it.
    """

    make: Callable[[], PreTrainedModel]
    norm: str
    num_prefix: int
    norms_tokens: bool = True


TWINS = {
    "clip": Twin(clip, "post_layernorm", 1, norms_tokens=False),
    "clip_vision": Twin(
        lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES, **PICTURE)), "post_layernorm", 1, norms_tokens=False
    ),
    "siglip": Twin(
        lambda: SiglipModel(SiglipConfig(text_config=TEXT, vision_config={**SIZES, **PICTURE})),
        "post_layernorm",
        0,
    ),
    "siglip_vision": Twin(
        lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, **PICTURE)), "post_layernorm", 0
    ),
    "dinov2": Twin(lambda: Dinov2Model(Dinov2Config(**HEADS, **PICTURE)), "layernorm", 1),
    "dinov2_with_registers": Twin(
        lambda: Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**HEADS, **PICTURE, num_register_tokens=4)
        ),
        "layernorm",
        5,
    ),
    "vit": Twin(lambda: ViTModel(ViTConfig(**SIZES, **PICTURE)), "layernorm", 1),
    "beit": Twin(lambda: beit(shared=True), "layernorm", 1),
    "beit_finetuned": Twin(lambda: beit(shared=False, mean=True), "layernorm", 1),
}


@dataclass(frozen=True)
class Saved:
    twin: Twin
    vision: PreTrainedModel
    source: PretrainedSource

    @property
    def hidden_states(self) -> tuple[torch.Tensor, ...]:
        return self.vision(PIXELS, output_hidden_states=True).hidden_states


@pytest.fixture(params=TWINS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Saved:
    torch.manual_seed(0)
    twin = TWINS[request.param]
    model = twin.make().eval()
    for parameter in model.parameters():
        # Freshly made models have zeros (BEiT's position bias) and ones (norms), which would hide mistakes.
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    model.save_pretrained(tmp_path)
    vision = model.get_submodule("vision_model") if request.param in ("clip", "siglip") else model
    assert isinstance(vision, PreTrainedModel)
    return Saved(twin, vision, PretrainedSource(name=str(tmp_path)))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def test_a_layer_is_that_hidden_state_bit_for_bit(saved: Saved) -> None:
    states, prefix = saved.hidden_states, saved.twin.num_prefix
    assert len(states) == LAYERS + 1
    for layer in range(LAYERS + 1):
        everything = load_vision_encoder(saved.source, "all", layer=layer, final_norm=False)
        assert torch.equal(everything(PIXELS), states[layer])
    patches = load_vision_encoder(saved.source, "patches", layer=-2, final_norm=False)
    assert torch.equal(patches(PIXELS), states[-2][:, prefix:])
    assert patches.num_tokens(Size(32, 32)) == 16 == everything.num_tokens(Size(32, 32)) - prefix
    if prefix:
        first = load_vision_encoder(saved.source, "cls", layer=-3, final_norm=False)
        assert torch.equal(first(PIXELS), states[-3][:, :1])


@torch.no_grad()
def test_the_last_norm_is_applied_where_it_is_asked_for(saved: Saved) -> None:
    states, twin = saved.hidden_states, saved.twin
    normed = saved.vision.get_submodule(twin.norm)(states[-1])
    own = saved.vision(PIXELS).last_hidden_state
    assert torch.equal(own, normed if twin.norms_tokens else states[-1])
    for layer in (None, -1):
        with_norm = load_vision_encoder(saved.source, "all", layer=layer)
        assert torch.equal(with_norm(PIXELS), normed)
        without = load_vision_encoder(saved.source, "all", layer=layer, final_norm=False)
        assert torch.equal(without(PIXELS), states[-1])


def test_what_is_behind_the_layer_is_not_built(saved: Saved) -> None:
    source = dataclasses.replace(saved.source, random=True)
    sizes = [
        count(load_vision_encoder(source, "all", layer=layer, final_norm=False))
        for layer in range(LAYERS + 1)
    ]
    from_the_end = [
        count(load_vision_encoder(source, "all", layer=layer, final_norm=False))
        for layer in range(-LAYERS - 1, 0)
    ]
    assert from_the_end == sizes
    layers = [module for module in saved.vision.modules() if isinstance(module, torch.nn.ModuleList)]
    one_layer = count(layers[0][0])
    assert [larger - smaller for smaller, larger in itertools.pairwise(sizes)] == [one_layer] * LAYERS
    norm = count(saved.vision.get_submodule(saved.twin.norm))
    assert count(load_vision_encoder(source, "all", layer=-1)) == sizes[-1] + norm
    # ViT's and BEiT's pooling layers are optional and exist for pooled features only; SigLIP's head is part of it.
    pooling = saved.vision._modules.get("pooler")
    whole = count(saved.vision) - (count(pooling) if pooling is not None else 0)
    assert count(load_vision_encoder(source, "all", final_norm=False)) == whole


@torch.no_grad()
def test_pooled_features_are_the_pooled_output(saved: Saved) -> None:
    encoder = load_vision_encoder(saved.source, "pooled")
    assert torch.equal(encoder(PIXELS), saved.vision(PIXELS).pooler_output.unsqueeze(1))
    assert encoder.num_tokens(Size(32, 32)) == 1
    for changed, why in (
        ({"layer": -1}, "behind the last layer"),
        ({"final_norm": False}, "always normalised"),
    ):
        with pytest.raises(ValueError, match=why):
            load_vision_encoder(saved.source, "pooled", **changed)


def test_layers_that_do_not_exist_are_refused(saved: Saved) -> None:
    for layer in (LAYERS + 1, -LAYERS - 2):
        with pytest.raises(
            ValueError, match=rf"no layer {layer}: this encoder has 3 layers; choose one from -4 to 3"
        ):
            load_vision_encoder(saved.source, "all", layer=layer, final_norm=False)
    with pytest.raises(
        ValueError, match=r"belongs to the last layer \(3\), but layer -2 .* final_norm: false"
    ):
        load_vision_encoder(saved.source, "all", layer=-2)
    if saved.twin.num_prefix == 0:
        with pytest.raises(ValueError, match="no CLS token"):
            load_vision_encoder(saved.source, "cls")


@torch.no_grad()
def test_projected_features_are_clip_image_embeddings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = clip().eval()
    model.save_pretrained(tmp_path / "both")
    alone = CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, **PICTURE, projection_dim=12)).eval()
    alone.save_pretrained(tmp_path / "alone")
    expected = {
        "both": model.visual_projection(model.vision_model(PIXELS).pooler_output),
        "alone": alone(PIXELS).image_embeds,
    }
    for name, vectors in expected.items():
        encoder = load_vision_encoder(PretrainedSource(name=str(tmp_path / name)), "projected")
        assert torch.equal(encoder(PIXELS), vectors.unsqueeze(1))
        assert encoder.width == 12
    ViTModel(ViTConfig(**SIZES, **PICTURE)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="only CLIP encoders have a projection, and this is 'vit'"):
        load_vision_encoder(PretrainedSource(name=str(tmp_path / "vit")), "projected")


@torch.no_grad()
def test_classifiers_and_older_key_names_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = ViTForImageClassification(ViTConfig(**SIZES, **PICTURE)).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    states = classifier(PIXELS, output_hidden_states=True).hidden_states
    source = PretrainedSource(name=str(tmp_path / "classifier"))
    assert torch.equal(load_vision_encoder(source, "all", layer=-2, final_norm=False)(PIXELS), states[-2])
    assert torch.equal(load_vision_encoder(source, "all", final_norm=False)(PIXELS), states[-1])
    with pytest.raises(ValueError, match="lacks 2 weights"):
        load_vision_encoder(source, "pooled")

    network = CLIPVisionModel(CLIPVisionConfig(**SIZES, **PICTURE)).eval()
    folder = tmp_path / "older"
    network.save_pretrained(folder)
    file = folder / "model.safetensors"
    # As transformers 4 wrote it, and as the hub still holds it.
    renamed = {f"vision_model.{name}": weight for name, weight in load_file(file).items()}
    save_file(renamed, file, metadata={"format": "pt"})
    older = load_vision_encoder(PretrainedSource(name=str(folder)), "all", layer=1, final_norm=False)
    assert torch.equal(older(PIXELS), network(PIXELS, output_hidden_states=True).hidden_states[1])


def drop_rates(network: torch.nn.Module) -> list[float]:
    """Of each layer: how often BEiT's training drops it."""
    layers = next(module for module in network.modules() if isinstance(module, torch.nn.ModuleList))
    return [
        0.0 if isinstance(layer.drop_path, torch.nn.Identity) else layer.drop_path.drop_prob
        for layer in layers
    ]


def test_layers_of_beit_keep_their_drop_rates(tmp_path: Path) -> None:
    whole = beit(shared=True)
    whole.save_pretrained(tmp_path)
    assert drop_rates(whole) == [0.0, 0.05, 0.1]
    encoder = load_vision_encoder(PretrainedSource(name=str(tmp_path)), "all", layer=2, final_norm=False)
    assert drop_rates(encoder) == [0.0, 0.05]


@torch.no_grad()
def test_convnext_gives_the_grid_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 2, 1], image_size=64)
    network = ConvNextModel(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    network.save_pretrained(tmp_path)
    encoder = load_vision_encoder(PretrainedSource(name=str(tmp_path)), "patches")
    for height, width in ((64, 64), (96, 64), (70, 100)):
        pixels = torch.randn(2, 3, height, width)
        grid = network(pixels).last_hidden_state
        tokens = encoder(pixels)
        assert tokens.shape == (2, encoder.num_tokens(Size(height, width)), 24) == (2, grid[0, 0].numel(), 24)
        # Channels-last memory takes another convolution kernel: over 12 seeds at most 3.3e-7 of the scale was measured.
        gap = (tokens - grid.flatten(2).transpose(1, 2)).abs().max()
        assert gap < 3e-6 * grid.abs().max()
    with pytest.raises(ValueError, match="read at its end, but layer -2"):
        load_vision_encoder(PretrainedSource(name=str(tmp_path)), "patches", layer=-2)
    with pytest.raises(ValueError, match="not 'pooled'"):
        load_vision_encoder(PretrainedSource(name=str(tmp_path)), "pooled")
