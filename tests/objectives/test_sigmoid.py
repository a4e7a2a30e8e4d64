"""The pairwise sigmoid loss against published numbers, transformers' SigLIP and sums over single pairs."""

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from isthmus.core.batch import Batch
from isthmus.core.protocols import Contrasts, Encoded, Objective, Progress
from isthmus.objectives.sigmoid import Sigmoid

NOW = Progress(step=0, num_steps=1)


class Factors(nn.Module):
    """A model that only has a scale and perhaps a bias."""

    def __init__(self, scale: float, bias: float | None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def logit_scale(self) -> Tensor:
        return self.scale

    def logit_bias(self) -> Tensor | None:
        return self.bias


def sigmoid(images: Tensor, texts: Tensor, factors: Factors, own: Tensor | None = None) -> Tensor:
    batch = Batch(sample_ids=tuple(str(i) for i in range(len(images))), image_of_text=own)
    encoded = Encoded(image_views=images.unsqueeze(1), text_vectors=texts)
    term = Sigmoid(factors)(encoded, batch, NOW)["sigmoid"]
    assert term.count == len(images)
    return term.sum / term.count


def test_the_stand_in_and_the_loss_satisfy_the_protocols() -> None:
    assert isinstance(Factors(1.0, None), Contrasts)
    assert isinstance(Sigmoid(Factors(1.0, None)), Objective)


@pytest.mark.parametrize(
    ("rows", "orthonormal", "alike"),
    [(2, 0.6931925795, 10.0000908), (4, 0.6932833773, 10.0001816), (8, 0.6934649729, None)],
)
def test_published_numbers_at_the_papers_start(rows: int, orthonormal: float, alike: float | None) -> None:
    vectors = torch.eye(rows, dtype=torch.float64)
    assert sigmoid(vectors, vectors, Factors(10.0, -10.0)).item() == pytest.approx(orthonormal, rel=1e-9)
    closed = math.log(2) + (rows - 1) * math.log1p(math.exp(-10))
    assert sigmoid(vectors, vectors, Factors(10.0, -10.0)).item() == pytest.approx(closed, rel=1e-12)
    if alike is not None:
        nothing = torch.zeros_like(vectors)
        assert sigmoid(nothing, nothing, Factors(10.0, -10.0)).item() == pytest.approx(alike, rel=1e-8)


def test_equals_the_loss_and_gradients_of_transformers() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        text_config={**sizes, "vocab_size": 20, "max_position_embeddings": 6, "projection_size": 16},
    )
    published = SiglipModel(config).eval().double()
    with torch.no_grad():
        published.logit_scale.fill_(math.log(10.0))
        published.logit_bias.fill_(-3.0)
    given = published(
        input_ids=torch.randint(0, 20, (5, 6)),
        pixel_values=torch.randn(5, 3, 16, 16, dtype=torch.float64),
        return_loss=True,
    )
    factors = Factors(10.0, -3.0)
    found = sigmoid(given.image_embeds, given.text_embeds, factors)
    assert found.item() == pytest.approx(given.loss.item(), rel=1e-12)
    expected = torch.autograd.grad(
        given.loss,
        [given.image_embeds, given.text_embeds, published.logit_bias, published.logit_scale],
        retain_graph=True,
    )
    assert factors.bias is not None
    ours = torch.autograd.grad(found, [given.image_embeds, given.text_embeds, factors.bias, factors.scale])
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours[1], expected[1], rtol=1e-12, atol=1e-14)
    assert ours[2].item() == pytest.approx(expected[2].item(), rel=1e-12)
    # transformers learns the logarithm of the scale, so its derivative has the factor 10 in it.
    assert 10.0 * ours[3].item() == pytest.approx(expected[3].item(), rel=1e-12)


@pytest.mark.parametrize("bias", [None, -2.0])
def test_every_text_of_a_picture_is_a_positive_pair(bias: float | None) -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(3, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    own, expected = [0, 0, 1, 2, 2], 0.0
    for i in range(3):
        for j in range(5):
            logit = 2.0 * float(images[i] @ texts[j]) + (bias or 0.0)
            expected += math.log1p(math.exp(-logit if own[j] == i else logit))
    found = sigmoid(images, texts, Factors(2.0, bias), torch.tensor(own))
    assert found.item() == pytest.approx(expected / 3, rel=1e-12)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        sigmoid(torch.ones(1, 2), torch.ones(1, 2), Factors(1.0, None))
