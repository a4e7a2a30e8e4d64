"""An ensemble of heads and text encoders learns as its members would alone, and judges by the mean of what they say."""

import pytest
import torch

from isthmus.config.load import load_recipe
from isthmus.core.batch import Batch
from isthmus.core.errors import RecipeError
from isthmus.core.protocols import Progress
from isthmus.models.dual_encoder import DualEncoder
from isthmus.nn.members import Members
from isthmus.nn.transformer import TransformerShape
from isthmus.objectives.contrastive import Contrastive
from isthmus.parts.language.text_encoder import TextEncoder, TokenIds
from isthmus.parts.vision.head import ImageHead
from isthmus.parts.vision.vit import ViT

SHAPE = TransformerShape(width=8, num_layers=1, num_heads=2)


def batch_of(rows: int) -> Batch:
    return Batch(
        sample_ids=tuple(map(str, range(rows))),
        pixels=torch.randn(rows, 3, 16, 16),
        token_ids=torch.randint(0, 9, (rows, 5)),
        attention_mask=torch.ones(rows, 5, dtype=torch.bool),
    )


def alone(model: DualEncoder, head: ImageHead, text: TextEncoder) -> DualEncoder:
    return DualEncoder(vision=model.vision, image_head=head, text=text, scale_init=5.0)


@torch.no_grad()
def lost(model: DualEncoder, batch: Batch, *, num_members: int = 1) -> float:
    objective = Contrastive(model, num_members=num_members)
    return float(objective(model.encode(batch), batch, Progress(step=0, num_steps=1))["contrastive"].sum)


def test_members_learn_alone_and_are_averaged() -> None:
    torch.manual_seed(0)
    heads = [ImageHead(vision_width=8, embed_dim=6) for _ in range(3)]
    texts = [
        TextEncoder(tokens=TokenIds(vocabulary=9, context=5), shape=SHAPE, embed_dim=6) for _ in range(3)
    ]
    model = DualEncoder(
        vision=ViT(image_size=16, patch=8, shape=SHAPE),
        image_head=Members(heads),
        text=Members(texts),
        scale_init=5.0,
    )
    batch = batch_of(4)
    images, words = model.image_vectors(batch), model.text_vectors(batch)
    assert images is not None and words is not None
    assert images.norm(dim=1).allclose(torch.ones(4), atol=1e-6)
    singles = [alone(model, head, text) for head, text in zip(heads, texts, strict=True)]
    products = []
    for single in singles:
        seen, said = single.image_vectors(batch), single.text_vectors(batch)
        assert seen is not None and said is not None
        products.append(seen @ said.T)
    # Measured 6e-8.
    assert torch.allclose(images @ words.T, torch.stack(products).mean(0), atol=1e-6)
    together = lost(model, batch, num_members=model.num_members)
    assert together == pytest.approx(sum(lost(one, batch) for one in singles) / 3, rel=1e-6)
    assert lost(model, batch) != pytest.approx(together, rel=1e-3), "of the joined vectors it is another loss"


def test_what_an_ensemble_cannot_learn_by_or_start_from_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"contrastive, because model\.members is above 1"):
        load_recipe("tiny/siglip", ["model.members=2"])
    with pytest.raises(RecipeError, match="1, because published weights fill one image head"):
        load_recipe("clip", ["model.members=2", "model.weights=openai/clip-vit-base-patch32"])
