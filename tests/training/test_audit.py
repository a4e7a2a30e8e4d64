import pytest
import torch

from isthmus.core.errors import GuardError
from isthmus.training.audit import TrainingAudit, digest_of, frozen_hash
from isthmus.training.parameters import set_trainable

from .toy import ToyModel


def _step(model: ToyModel, audit: TrainingAudit, used: tuple[str, ...]) -> None:
    model.zero_grad()
    sum((p * (i + 1)).sum() for i, (n, p) in enumerate(model.named_parameters()) if n in used).backward()
    audit.observe(0.1)
    audit.conclude()


def test_a_gradient_in_any_of_three_steps_is_enough() -> None:
    model = ToyModel()
    audit = TrainingAudit(model, set_trainable(model, ["connector"]))
    _step(model, audit, ("connector.weight",))
    _step(model, audit, ("connector.weight",))
    _step(model, audit, ("connector.bias",))


def test_a_tensor_without_gradient_stops_the_run_by_name() -> None:
    model = ToyModel()
    audit = TrainingAudit(model, set_trainable(model, ["connector"]))
    _step(model, audit, ("connector.weight",))
    _step(model, audit, ("connector.weight",))
    with pytest.raises(GuardError, match=r"1 of 2 trainable tensors.*connector\.bias"):
        _step(model, audit, ("connector.weight",))
    _step(model, audit, ("connector.weight",))  # the verdict is given once


def test_steps_at_learning_rate_zero_do_not_count() -> None:
    model = ToyModel()
    audit = TrainingAudit(model, set_trainable(model, ["connector"]), num_steps=1)
    audit.observe(0.0)
    audit.conclude()
    with pytest.raises(GuardError):
        _step(model, audit, ("connector.weight",))


@pytest.mark.parametrize("name", ["vision.0.bias", "vision.1.running_mean"])
def test_a_frozen_tensor_that_moves_by_one_bit_stops_the_run(name: str) -> None:
    model = ToyModel()
    audit = TrainingAudit(model, set_trainable(model, ["connector"]), num_steps=1)
    tensor = model.state_dict()[name]
    tensor[0] = torch.nextafter(tensor[0], torch.tensor(9.0))
    with pytest.raises(GuardError, match=f"1 frozen tensors changed.*{name}"):
        _step(model, audit, ("connector.weight", "connector.bias"))


def test_digests_see_shape_type_and_bits() -> None:
    zeros = torch.zeros(2, 3)
    others = [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.int32), -zeros, torch.zeros(6)]
    assert len({digest_of(tensor) for tensor in [zeros, *others]}) == 5
    assert digest_of(torch.zeros(3, 2).T) == digest_of(zeros)
    assert digest_of(torch.tensor(1.0, dtype=torch.bfloat16))


def test_the_frozen_hash_ignores_what_learns() -> None:
    model = ToyModel()
    split = set_trainable(model, ["connector"])
    before = frozen_hash(model, split)
    with torch.no_grad():
        model.connector.weight.add_(1)
    assert frozen_hash(model, split) == before
    with torch.no_grad():
        model.language["head"].weight[0, 0] += 1
    assert frozen_hash(model, split) != before
