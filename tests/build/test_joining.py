"""Connectors from a recipe."""

import torch

from isthmus.build.model import build_model
from isthmus.config.load import load_recipe
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.parts.connectors.connector import Connector


def connector(said: str) -> Connector:
    recipe = load_recipe("demo", [f"model.connector={said}"])
    model = build_model(recipe.model, weights="random")
    assert isinstance(model, VisionLanguageModel)
    assert model.connector is not None
    return model.connector


def test_a_pixel_shuffle_drops_features_in_training_alone() -> None:
    made = connector("{kind: pixel_shuffle, factor: 2, dropout: 0.5}")
    plain = connector("{kind: pixel_shuffle, factor: 2, positions: true}")
    sizes = [sum(one.numel() for one in each.parameters()) for each in (made, plain)]
    assert sizes[1] - sizes[0] == 4 * 64  # the same norm and map; only positions are apart
    patches = torch.randn(1, 16, 128, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first, second = made.train()(patches), made(patches)
    assert not torch.equal(first, second)
    assert torch.equal(made.eval()(patches), made(patches))
