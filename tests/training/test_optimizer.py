import math

import pytest
import torch
from torch import nn

from isthmus.core.errors import RecipeError
from isthmus.training.averaging import WeightAverage
from isthmus.training.optimizer import OptimizerSettings, build_optimizer, decays, set_learning_rate
from isthmus.training.parameters import set_trainable
from isthmus.training.schedule import learning_rate_factor

from .toy import ToyModel


def test_cosine_follows_its_closed_form() -> None:
    def factor(step: int) -> float:
        return learning_rate_factor(step, 100, schedule="cosine", warmup_fraction=0.1, final_fraction=0.2)

    assert factor(0) == 1 / 11
    assert factor(9) == 10 / 11
    assert factor(10) == 1.0
    assert factor(55) == pytest.approx(0.2 + 0.8 * 0.5)
    assert factor(99) == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * 89 / 90)))


def test_linear_and_constant() -> None:
    linear = [
        learning_rate_factor(s, 4, schedule="linear", warmup_fraction=0, final_fraction=0) for s in range(4)
    ]
    assert linear == [1.0, 0.75, 0.5, 0.25]
    assert learning_rate_factor(3, 4, schedule="constant", warmup_fraction=0, final_fraction=0) == 1.0


@pytest.mark.parametrize("num_steps", [1, 2, 3, 17])
def test_no_step_has_a_learning_rate_of_zero(num_steps: int) -> None:
    for step in range(num_steps):
        assert (
            0
            < learning_rate_factor(step, num_steps, schedule="cosine", warmup_fraction=0.9, final_fraction=0)
            <= 1
        )


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("connector.weight", (3, 3), True),
        ("vision.conv.weight", (3, 3, 1, 1), True),
        ("language.embed_tokens.weight", (9, 3), True),
        ("attention.in_proj_weight", (9, 3), True),
        ("connector.bias", (3,), False),
        ("norm.weight", (3,), False),
        ("text.position_embedding.weight", (9, 3), False),
        ("language.wpe.weight", (9, 3), False),
        ("vision.positions", (1, 9, 3), False),
        ("connector.latents", (9, 3), False),
        ("logit_scale", (), False),
    ],
)
def test_which_parameters_decay(name: str, shape: tuple[int, ...], expected: bool) -> None:
    assert decays(name, torch.zeros(shape)) is expected


def test_groups_carry_decay_and_learning_rate_of_their_part() -> None:
    settings = OptimizerSettings(
        lr=0.1, lr_by_part={"language": 0.01}, weight_decay=0.5, weight_decay_by_part={"connector": 2.0}
    )
    optimizer = build_optimizer(set_trainable(ToyModel(), ["connector", "language"]), settings)
    found = {(g["part"], g["weight_decay"]): (g["peak_lr"], len(g["params"])) for g in optimizer.param_groups}
    assert found == {
        ("connector", 2.0): (0.1, 1),
        ("connector", 0.0): (0.1, 1),
        ("language", 0.5): (0.01, 2),
        ("language", 0.0): (0.01, 2),
    }
    assert set_learning_rate(optimizer, 0.5) == 0.05
    assert {group["lr"] for group in optimizer.param_groups} == {0.05, 0.005}


def test_one_update_equals_the_formula_of_adamw() -> None:
    """Loshchilov and Hutter, 2019, algorithm 2, at t = 1: the step is lr * (sign of the gradient + decay * weight)."""
    model = ToyModel().double()
    split = set_trainable(model, ["connector"])
    optimizer = build_optimizer(split, OptimizerSettings(lr=0.1, weight_decay=0.5, eps=1e-300))
    before = model.connector.weight.detach().clone()
    model.connector.weight.grad = torch.randn_like(before)
    optimizer.step()
    expected = before - 0.1 * (model.connector.weight.grad.sign() + 0.5 * before)
    assert torch.allclose(model.connector.weight, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.0}, "optimizer.lr is 0.0; expected a number above 0"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"ema": 1.0}, "ema"),
        ({"clip": -1.0}, "clip"),
        ({"lr_by_part": {"connector": -1.0}}, "lr_by_part.connector"),
        ({"weight_decay_by_part": {"connector": -1.0}}, "weight_decay_by_part.connector"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        OptimizerSettings(**settings)


@pytest.mark.parametrize("setting", ["lr_by_part", "weight_decay_by_part"])
def test_a_setting_of_a_part_that_is_not_trained_is_refused(setting: str) -> None:
    split = set_trainable(ToyModel(), ["connector"])
    with pytest.raises(RecipeError, match=rf"{setting} names 'language', which is not trained.*connector"):
        build_optimizer(split, OptimizerSettings(**{setting: {"language": 1.0}}))


def test_the_average_follows_its_recursion_and_gives_the_weights_back() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage({"weight": weight}, decay=0.15)
    expected = 1.0
    for step in range(5):
        with torch.no_grad():
            weight.add_(1.0)
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.item()
        average.update(step)
    assert average.averages["weight"].item() == pytest.approx(expected, rel=1e-6)
    with average.applied():
        assert weight.item() == average.averages["weight"].item()
    assert weight.item() == 6.0
    average.apply()
    assert weight.item() == average.averages["weight"].item()
