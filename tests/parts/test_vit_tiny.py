"""μOmni's ViTTiny: its sizes, its shapes, and where its CLS looks."""

import pytest
import torch

from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.linear import LinearConnector
from isthmus.parts.vision.encoder import Features
from isthmus.parts.vision.vit import ViT, ViTForm


def vit_tiny(*, features: Features = "all", relative: bool = False) -> ViT:
    shape = TransformerShape(width=128, num_layers=4, num_heads=2)
    form = ViTForm(cls="placed", last_norm="rms", relative=relative)
    return ViT(image_size=224, patch=16, shape=shape, form=form, features=features)


def test_vit_tiny_shapes_and_sizes() -> None:
    assert sum(parameter.numel() for parameter in vit_tiny().parameters()) == 916_992
    assert sum(parameter.numel() for parameter in vit_tiny().transformer.blocks[0].parameters()) == 198_272
    default = ViT(
        image_size=224,
        patch=16,
        shape=TransformerShape(width=192, num_layers=12, num_heads=3),
        form=ViTForm(cls="placed", last_norm="rms"),
    )
    assert sum(parameter.numel() for parameter in default.parameters()) == 5_524_224
    pixels = torch.randn(2, 3, 224, 224)
    assert vit_tiny().patch_embedding(pixels).shape == (2, 196, 128)
    tokens = vit_tiny()(pixels)
    assert tokens.shape == (2, 197, 128)
    assert vit_tiny(features="cls")(pixels).shape == (2, 1, 128)
    assert vit_tiny(features="patches")(pixels).shape == (2, 196, 128)
    # The last norm is RMSNorm: the mean square of every token is one.
    assert torch.allclose(tokens.square().mean(-1), torch.ones(2, 197), atol=1e-3)
    projector = LinearConnector(vision_width=128, language_width=256)
    assert projector(tokens[:, :1]).shape == (2, 1, 256)


@pytest.mark.parametrize("relative", [False, True])
def test_cls_attention_is_what_the_last_block_mixes(relative: bool) -> None:
    model = vit_tiny(relative=relative).eval()
    if model.relative is not None:
        torch.nn.init.normal_(model.relative.table, generator=torch.Generator().manual_seed(1))
    pixels = torch.randn(2, 3, 224, 224)
    looked = model.cls_attention(pixels)
    assert looked.shape == (2, 2, 197)
    assert torch.allclose(looked.sum(-1), torch.ones(2, 2), atol=1e-5)
    # Brute force: values mixed by these weights are what the attention gives for CLS.
    seen: list[torch.Tensor] = []
    attention = model.transformer.blocks[-1].get_submodule("attention")
    attention.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    with torch.no_grad():
        model(pixels)
        value = attention.get_submodule("qkv")(seen[0])[..., 256:].unflatten(-1, (2, 64))
        mixed = torch.einsum("bhk,bkhd->bhd", looked, value).flatten(1)
        assert torch.allclose(attention.get_submodule("out")(mixed), seen[1][:, 0], atol=1e-5)


def test_vit_tiny_reads_other_sizes_by_interpolated_positions() -> None:
    model = vit_tiny().eval()
    assert model(torch.randn(1, 3, 160, 320)).shape == (1, 1 + 10 * 20, 128)
