"""Vision encoders: what comes out, and that making them fast changes nothing."""

import os
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    MobileNetV2Config,
    MobileNetV2Model,
    ViTConfig,
    ViTModel,
)

from isthmus.core.sizes import Size
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.vision.fused import assert_same_output
from isthmus.parts.vision.head import HeadDropout, ImageHead
from isthmus.parts.vision.pretrained import ConvolutionalEncoder, load_vision_encoder
from isthmus.parts.vision.vit import ViT

MOBILENET = Path(os.environ.get("ISTHMUS_SHARED", "../shared")) / "models" / "mobilenet_v2"


def small_mobilenet() -> MobileNetV2Model:
    torch.manual_seed(0)
    network = MobileNetV2Model(MobileNetV2Config(image_size=64, depth_multiplier=0.35)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return network


def test_vit_gives_the_tokens_it_is_asked_for() -> None:
    torch.manual_seed(0)
    shape = TransformerShape(width=16, num_layers=1, num_heads=2)
    everything = ViT(image_size=32, patch=8, shape=shape, features="all").eval()
    pixels = torch.randn(2, 3, 32, 32)
    tokens = everything(pixels)
    assert tokens.shape == (2, 17, 16)
    for features, part in (("patches", tokens[:, 1:]), ("cls", tokens[:, :1])):
        other = ViT(image_size=32, patch=8, shape=shape, features=features).eval()
        other.load_state_dict(everything.state_dict())
        # For CLS alone the last block multiplies smaller matrices; largest difference seen: 4.8e-7.
        assert (other(pixels) - part).abs().max() < 2e-6
        assert other.num_tokens(Size(32, 32)) == part.shape[1]
    assert everything(torch.randn(1, 3, 16, 48)).shape == (1, 13, 16), (
        "other sizes get interpolated positions"
    )
    with pytest.raises(ValueError, match="not 'pooled'"):
        ViT(image_size=32, patch=8, shape=shape, features="pooled")


@pytest.mark.parametrize(("layer", "blocks"), [(0, 0), (1, 1), (2, 2), (3, 3), (-1, 3), (-2, 2), (-4, 0)])
def test_a_vit_that_ends_early_gives_what_the_whole_one_passes_on(layer: int, blocks: int) -> None:
    torch.manual_seed(0)
    shape = TransformerShape(width=16, num_layers=3, num_heads=2)
    whole = ViT(image_size=32, patch=8, shape=shape, features="all").eval()
    passed: list[torch.Tensor] = []
    whole.transformer.blocks[0].register_forward_pre_hook(lambda block, given: passed.append(given[0]))
    for block in whole.transformer.blocks:
        block.register_forward_hook(lambda block, given, out: passed.append(out))
    pixels = torch.randn(2, 3, 32, 32)
    normed = whole(pixels)
    cut = ViT(image_size=32, patch=8, shape=shape, features="all", layer=layer, final_norm=False).eval()
    weights = {
        name: tensor for name, tensor in whole.state_dict().items() if not name.startswith(cut.not_built)
    }
    assert len(whole.state_dict()) - len(weights) == 12 * (3 - blocks) + 2
    cut.load_state_dict(weights)
    assert torch.equal(cut(pixels), passed[layer])
    assert torch.equal(whole.norm(passed[-1]), normed)


def test_a_vit_has_no_layer_or_norm_that_is_not_there() -> None:
    shape = TransformerShape(width=16, num_layers=3, num_heads=2)
    with pytest.raises(ValueError, match=r"no layer 4: .* 3 layers; choose one from -4 to 3"):
        ViT(image_size=32, patch=8, shape=shape, layer=4, final_norm=False)
    with pytest.raises(
        ValueError, match=r"belongs to the last layer \(3\), but layer -2 .*final_norm: false"
    ):
        ViT(image_size=32, patch=8, shape=shape, layer=-2)
    assert ViT(image_size=32, patch=8, shape=shape, layer=-1).not_built == ()


def test_folding_batch_norms_keeps_the_output() -> None:
    network = small_mobilenet()
    encoder = ConvolutionalEncoder(network=network, image_size=Size(64, 64), width=1280, stride=32)
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    before = encoder(pixels)
    assert before.shape == (2, 4, 1280) == (2, encoder.num_tokens(Size(64, 64)), encoder.width)
    plain = network(pixels).last_hidden_state
    assert torch.allclose(before[0, 1], plain[0, :, 0, 1], atol=1e-5), "tokens come row by row"
    assert encoder.make_fast() == 52
    assert not [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert (encoder(pixels) - before).abs().max() / before.abs().max() < 1e-5
    with pytest.raises(ValueError, match="changed the output by"):
        assert_same_output(before, before * 1.01)


def test_earlier_layers_of_a_convolutional_network_are_joined_to_its_last_one(tmp_path: Path) -> None:
    network = small_mobilenet()
    network.save_pretrained(tmp_path)
    source = PretrainedSource(name=str(tmp_path))
    encoder = load_vision_encoder(source, "patches", joined=(12, 2))
    assert isinstance(encoder, ConvolutionalEncoder)
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    found, every = encoder(pixels), network(pixels, output_hidden_states=True)
    middle, early = every.hidden_states[12], every.hidden_states[2]
    assert found.shape == (2, 4, 1280 + middle.shape[1] + early.shape[1]) == (2, 4, encoder.width)
    assert torch.equal(found[..., :1280], load_vision_encoder(source, "patches")(pixels))
    # The third of four positions: the lower left quarter of every map.
    for start, grid in ((1280, middle), (1280 + middle.shape[1], early)):
        side = grid.shape[2] // 2
        mean = grid[:, :, side:, :side].mean(dim=(2, 3))
        assert torch.allclose(found[:, 2, start : start + grid.shape[1]], mean, atol=1e-5)
    before = found
    assert encoder.make_fast() == 52
    assert (encoder(pixels) - before).abs().max() / before.abs().max() < 1e-5
    with pytest.raises(ValueError, match="joined: found 99, but the network has layers 0 to 15"):
        load_vision_encoder(source, "patches", joined=(3, 99))
    vit = ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    )
    vit.save_pretrained(tmp_path / "vit")
    with pytest.raises(
        ValueError, match=r"convolutional encoders alone, but a 'vit' is given; use joined: \[\]"
    ):
        load_vision_encoder(PretrainedSource(name=str(tmp_path / "vit")), "patches", joined=(1,))


def test_pretrained_folders_give_what_transformers_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    clip = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).eval()
    vit = ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).eval()
    pixels = torch.randn(2, 3, 32, 32)
    for network in (clip, vit):
        folder = tmp_path / network.config.model_type
        network.save_pretrained(folder)
        expected = network(pixels)
        for features, tokens in (
            ("patches", expected.last_hidden_state[:, 1:]),
            ("all", expected.last_hidden_state),
            ("cls", expected.last_hidden_state[:, :1]),
            ("pooled", expected.pooler_output.unsqueeze(1)),
        ):
            # CLIP's own last hidden states have not been through its last normalisation.
            normed = network is vit or features == "pooled"
            encoder = load_vision_encoder(PretrainedSource(name=str(folder)), features, final_norm=normed)
            assert torch.equal(encoder(pixels), tokens)
            assert encoder.num_tokens(Size(32, 32)) == tokens.shape[1]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        load_vision_encoder(PretrainedSource(name=str(tmp_path / "nowhere")), "patches")


@pytest.mark.skipif(
    not MOBILENET.is_dir(), reason=f"the trained MobileNetV2 is not in {MOBILENET} (set ISTHMUS_SHARED)"
)
def test_the_trained_mobilenet_stays_itself_when_made_fast() -> None:
    encoder = load_vision_encoder(PretrainedSource(name=str(MOBILENET)), "patches")
    assert isinstance(encoder, ConvolutionalEncoder)
    assert encoder.num_tokens(encoder.image_size) == 49
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = encoder(pixels)
    assert encoder.make_fast() == 52
    assert (encoder(pixels) - before).abs().max() < 5e-4, "measured 7e-5 on features between 0 and 6"


def test_image_heads_pool_all_positions() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 9, 8)
    for pooling in ("mean", "first", "attention", "mean_attention"):
        head = ImageHead(vision_width=8, embed_dim=4, pooling=pooling, num_heads=2)
        assert head(patches).shape == (2, 4)
    mean = ImageHead(vision_width=8, embed_dim=4, pooling="mean")
    assert torch.allclose(mean(patches), mean.projection(mean.norm(patches).mean(dim=1)), atol=1e-6)
    channel = ImageHead(vision_width=8, embed_dim=4, norm="channel").train()
    flat = patches.reshape(18, 8)
    expected = (patches - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(channel(patches), channel.projection(expected.mean(dim=1)), atol=1e-5)


def test_an_image_head_drops_only_in_training() -> None:
    torch.manual_seed(0)
    patches = torch.randn(64, 9, 8)
    head = ImageHead(
        vision_width=8,
        embed_dim=4,
        pooling="mean_attention",
        dropout=HeadDropout(channels=0.3, patches=0.3, output=0.1),
    )
    assert not torch.equal(head(patches), head(patches))
    head.eval()
    assert torch.equal(head(patches), head(patches))
