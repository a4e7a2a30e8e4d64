"""A locked image encoder in training: no gradient, and not a bit changes, while the text side learns from it."""

import math

import pytest
import torch
from dual_twins import batch, own_lit, shaken

from isthmus.core.batch import Batch
from isthmus.models.dual_encoder import DualEncoder
from isthmus.objectives.contrastive import Contrastive
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.trainer import Trainer


class Given:
    """The same five pairs in every step, whole or in two parts."""

    def __init__(self, cuts: int) -> None:
        self._cuts = cuts

    def micro_batches(self, step: int) -> list[Batch]:
        del step
        whole = batch()
        assert whole.pixels is not None
        assert whole.token_ids is not None
        assert whole.attention_mask is not None
        return [
            Batch(
                sample_ids=whole.sample_ids[at :: self._cuts],
                pixels=pixels,
                token_ids=ids,
                attention_mask=mask,
            )
            for at in range(self._cuts)
            for pixels, ids, mask in [
                (
                    whole.pixels[at :: self._cuts],
                    whole.token_ids[at :: self._cuts],
                    whole.attention_mask[at :: self._cuts],
                )
            ]
        ]


def trained(model: DualEncoder, *, cuts: int) -> None:
    split = set_trainable(model, ("text", "scale"))
    settings = StageSettings(
        stage="contrast",
        seed=0,
        num_steps=3,
        precision="fp32",
        optimizer=OptimizerSettings(lr=0.3, weight_decay=0.1, clip=None),
    )
    Trainer(
        model=model,
        split=split,
        objectives={"contrastive": (Contrastive(model), 1.0)},
        stream=Given(cuts),
        settings=settings,
        services=Services(),
    ).run()


@pytest.mark.parametrize("cuts", [1, 2])
def test_a_locked_encoder_keeps_every_bit(cuts: int) -> None:
    model = own_lit()
    shaken(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained(model, cuts=cuts)
    after = model.state_dict()
    locked = [name for name in before if name.startswith("vision.")]
    assert len(locked) > 30
    assert all(torch.equal(after[name], before[name]) for name in locked)
    assert all(parameter.grad is None for parameter in model.vision.parameters())
    learnt = [name for name in before if name.startswith("text.")]
    assert all(not torch.equal(after[name], before[name]) for name in learnt)


def test_after_each_step_the_scale_is_in_its_range() -> None:
    for start in (1.0, 100.0):
        model = own_lit()
        model.scale.log_scale.data.fill_(math.log(start))
        trained(model, cuts=1)
        assert 0.0 <= float(model.scale.log_scale.detach()) <= math.log(100.0) + 1e-6
