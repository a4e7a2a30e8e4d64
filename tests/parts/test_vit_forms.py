"""The forms of published vision transformers: patches left out, positions, alpha, and their sizes."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from isthmus.core.sizes import Size
from isthmus.nn.feed_forward import QuickGELU, activation_of
from isthmus.nn.positions import FixedGridPositions, sincos_table
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.checkpoints import PretrainedSource
from isthmus.parts.vision.alpha import AlphaConvolution, with_fourth_channel
from isthmus.parts.vision.pretrained import load_vision_encoder, mark_regions
from isthmus.parts.vision.vit import ViT, ViTForm

SHAPE = TransformerShape(width=32, num_layers=2, num_heads=4)
CLIP = ViTForm(cls="placed", pre_norm=True, patch_bias=False)


def made(form: ViTForm | None = None, **changes: object) -> ViT:
    torch.manual_seed(0)
    settings = {"image_size": 32, "patch": 8, "shape": SHAPE, "features": "all", "form": form} | changes
    return ViT(**settings).eval()


def pixels(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("form", [ViTForm(), CLIP, ViTForm(cls="none"), ViTForm(positions="sincos")])
def test_patches_left_out_are_as_if_they_were_not_there(form: ViTForm) -> None:
    """Against a twin that hides them from attention in the whole sequence, layer by layer."""
    encoder = made(form)
    kept = torch.tensor([[0, 3, 4, 9, 15], [1, 2, 7, 8, 14]])
    prefix = int(form.cls != "none")
    seen = torch.zeros(2, 16, dtype=torch.bool).scatter_(1, kept, value=True)
    seen = torch.cat([torch.ones(2, prefix, dtype=torch.bool), seen], dim=1)
    short = encoder(pixels(), kept)
    assert short.shape == (2, 5 + prefix, 32)
    whole = {}
    encoder.transformer.register_forward_pre_hook(lambda module, given: whole.update(tokens=given[0]))
    full = encoder(pixels())
    hidden = encoder.norm(encoder.transformer(whole["tokens"], seen))
    # Measured 5e-7: the same sums over fewer terms.
    assert (hidden[seen].reshape(short.shape) - short).abs().max() < 1e-5
    assert (full[seen].reshape(short.shape) - short).abs().max() > 1e-2, "the others matter"
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2)).expand(2, -1)
    everything = encoder(pixels(), order)
    assert (
        everything[:, prefix:] - full[:, prefix:].gather(1, order[..., None].expand(-1, -1, 32))
    ).abs().max() < 1e-5


def test_fixed_positions_are_maes() -> None:
    table = sincos_table(Size(14, 14), 768)
    sine, cosine = torch.tensor(1.0).sin(), torch.tensor(1.0).cos()
    places = [0, 192, 384, 576]
    assert torch.allclose(table[1, places], torch.tensor([sine, cosine, 0.0, 1.0]), atol=1e-6), "column first"
    assert torch.allclose(table[14, places], torch.tensor([0.0, 1.0, sine, cosine]), atol=1e-6)
    positions = FixedGridPositions(grid=Size(14, 14), width=768)
    assert not list(positions.parameters())
    assert torch.equal(positions(Size(14, 14)), table)
    assert positions(Size(2, 3)).shape == (6, 768)
    with pytest.raises(ValueError, match="a width that 4 divides, not 6"):
        FixedGridPositions(grid=Size(2, 2), width=6)


@torch.no_grad()
def test_alpha_does_nothing_at_first_and_then_what_a_fourth_channel_does() -> None:
    plain, marked = made(CLIP), made(ViTForm(cls="placed", pre_norm=True, patch_bias=False, alpha=True))
    known = plain.state_dict()
    missing = marked.load_state_dict(known, strict=False)
    assert missing.missing_keys == ["patch_embedding.projection.alpha.weight"]
    for alpha in (torch.zeros(2, 1, 32, 32), torch.randn(2, 1, 32, 32) * 50):
        assert torch.equal(marked(torch.cat([pixels(), alpha], dim=1)), plain(pixels())), "bit for bit"
    with pytest.raises(ValueError, match="pictures of 3 channels came; give each picture a mask"):
        marked(pixels())
    projection = marked.patch_embedding.projection
    assert isinstance(projection, AlphaConvolution)
    torch.nn.init.normal_(projection.alpha.weight)
    whole = with_fourth_channel(projection.weight, projection.alpha.weight)
    expected = torch.nn.functional.conv2d(pixels(4), whole, stride=8)
    assert (projection(pixels(4)) - expected).abs().max() < 2e-5, "measured 4e-6 on numbers up to 30"
    assert not torch.equal(marked(pixels(4)), plain(pixels()))


@torch.no_grad()
def test_alpha_inside_a_hugging_face_network(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    network = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).eval()
    network.save_pretrained(folder)
    for features in ("cls", "pooled", "patches"):
        plain = load_vision_encoder(PretrainedSource(name=str(folder)), features)
        marked = load_vision_encoder(PretrainedSource(name=str(folder)), features)
        assert marked.alpha is None
        mark_regions(marked)
        assert marked.alpha is not None
        assert sum(weight.numel() for weight in marked.alpha.parameters()) == 16 * 8 * 8
        alpha = torch.randn(2, 1, 32, 32) * 50
        assert torch.equal(marked(torch.cat([pixels(), alpha], dim=1)), plain(pixels()))
    with pytest.raises(ValueError, match="only CLIP and SigLIP"):
        mark_regions(made())


def test_forms_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="cls is 'none'"):
        made(ViTForm(cls="none"), features="cls")
    with pytest.raises(ValueError, match="convolutional stem"):
        made(ViTForm(stem="convolutional", alpha=True))


def test_quick_gelu_is_what_transformers_calls_so() -> None:
    from transformers.activations import ACT2FN

    numbers = torch.linspace(-6, 6, 101)
    assert torch.equal(QuickGELU()(numbers), ACT2FN["quick_gelu"](numbers))
    ours, theirs = (torch.linspace(-6, 6, 101, dtype=torch.float64).requires_grad_() for _ in range(2))
    QuickGELU()(ours).sum().backward()
    ACT2FN["quick_gelu"](theirs).sum().backward()
    torch.testing.assert_close(
        ours.grad, theirs.grad, rtol=0, atol=1e-15
    )  # largest difference measured: 2.3e-16
    assert torch.autograd.gradcheck(QuickGELU(), ours)
    assert torch.equal(activation_of("tanh_gelu")(numbers), ACT2FN["gelu_pytorch_tanh"](numbers))
