import pytest
import torch
from torch import nn

from isthmus.core.errors import RecipeError
from isthmus.training.parameters import set_modes, set_trainable

from .toy import ToyModel


class WithLora(ToyModel):
    """The toy with low-rank matrices inside its language part, listed as a part of their own."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)
        self.language["lora"] = nn.ModuleDict(
            {"a": nn.Linear(8, 2), "b": nn.Linear(2, 8), "dropout": nn.Dropout(0.1)}
        )

    def parts(self) -> dict[str, nn.Module]:
        return super().parts() | {"lora": self.language["lora"]}


def test_only_the_named_part_learns() -> None:
    split = set_trainable(ToyModel(), ["connector"])
    assert set(split.trainable) == {"connector.weight", "connector.bias"}
    assert split.num_trainable == 8 * 8 + 8
    assert split.trained_parts == ("connector",)
    assert all(not parameter.requires_grad for parameter in split.frozen.values())


def test_parameters_inside_a_trained_part_can_stay_frozen() -> None:
    model = ToyModel()
    table = model.language["tokens"]
    split = set_trainable(model, ["connector", "language"], frozen=table.parameters())
    assert not table.weight.requires_grad
    assert {name for name in split.frozen if not name.startswith("vision")} == {"language.tokens.weight"}
    assert {row.part: row.frozen for row in split.rows}["language"] == table.weight.numel()
    set_modes(model)
    assert model.language["dropout"].training
    set_trainable(model, ["connector", "language"])
    assert table.weight.requires_grad


def test_rows_count_every_parameter_once() -> None:
    model = ToyModel()
    model.language["head"].weight = model.language["tokens"].weight
    split = set_trainable(model, ["language", "connector"])
    numbers = {row.part: (row.parameters, row.trainable, row.frozen) for row in split.rows}
    assert numbers == {"vision": (40 + 16, 0, 56), "connector": (72, 72, 0), "language": (88 + 16, 104, 0)}
    assert "total" in split.table()
    assert "232" in split.table()


def test_a_part_inside_another_owns_its_parameters() -> None:
    model = WithLora()
    split = set_trainable(model, ["connector", "lora"])
    assert {name for name in split.trainable if name.startswith("language")} == {
        "language.lora.a.weight",
        "language.lora.a.bias",
        "language.lora.b.weight",
        "language.lora.b.bias",
    }
    set_modes(model)
    assert model.training
    assert not model.language["dropout"].training
    assert model.language["lora"]["dropout"].training
    split = set_trainable(model, ["language"])
    assert not any("lora" in name for name in split.trainable)
    set_modes(model)
    assert model.language["dropout"].training
    assert not model.language["lora"]["dropout"].training


def test_a_bare_list_of_parameters_can_be_a_part() -> None:
    model = WithLora()

    class Listed(WithLora):
        def parts(self) -> dict[str, nn.Module]:
            return ToyModel.parts(self) | {"lora": nn.ParameterList(self.language["lora"].parameters())}

    model.__class__ = Listed
    split = set_trainable(model, ["lora"])
    assert split.num_trainable == 8 * 2 + 2 + 2 * 8 + 8


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    model = ToyModel()
    set_trainable(model, ["connector"])
    set_modes(model)
    before = model.vision[1].running_mean.clone()
    model.vision(torch.randn(5, 4))
    assert torch.equal(model.vision[1].running_mean, before)
    assert model.connector.training


def test_buffers_follow_their_part() -> None:
    model = ToyModel()
    assert set_trainable(model, ["connector"]).saved_buffers == ("num_updates",)
    split = set_trainable(model, ["vision"])
    assert "vision.1.running_mean" in split.saved_buffers
    assert split.frozen_buffers == ()


def test_an_unknown_part_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        RecipeError, match=r"no part 'conector'; its parts are vision, connector, language.*'connector'"
    ):
        set_trainable(ToyModel(), ["conector"])
    with pytest.raises(RecipeError, match="trains nothing"):
        set_trainable(ToyModel(), [])


def test_a_part_without_parameters_cannot_be_trained() -> None:
    model = ToyModel()
    model.connector = nn.Identity()
    with pytest.raises(RecipeError, match="'connector' has no parameters of its own"):
        set_trainable(model, ["connector"])


def test_a_parameter_outside_every_part_is_refused() -> None:
    model = ToyModel()
    model.scale = nn.Parameter(torch.zeros(()))
    with pytest.raises(RecipeError, match="'scale'"):
        set_trainable(model, ["connector"])
