"""A small BLIP with slow copies and queues, and pairs for it, for tests of several processes."""

import torch
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.randomness import generator_of
from isthmus.models.med import MedForm
from isthmus.models.momentum import MomentumForm
from isthmus.objectives.momentum_contrastive import MomentumContrastive
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.trainer import Trainer

from ..parity.small_med import DEC, med

FORM = MedForm(momentum=MomentumForm(decay=0.9, queue=7, soft=0.4, ramp=0.0))
SETTINGS = StageSettings(
    stage="remember",
    seed=5,
    num_steps=3,
    audit_steps=0,  # the match and cross-attention have nothing to do here
    precision="fp32",
    # Where a gradient is rounding error, a small eps makes it a step.
    optimizer=OptimizerSettings(lr=0.01, eps=1e-3),
)


class Texts:
    """Some pictures of each step, every second one with two texts; the rows of a picture follow from its number."""

    def __init__(self, num: int, *, first: int = 0) -> None:
        self._numbers = range(first, first + num)

    def micro_batches(self, step: int) -> list[Batch]:
        pixels, texts, owners = [], [], []
        for place, number in enumerate(self._numbers):
            random = generator_of(step, number)
            pixels.append(torch.randn(3, 28, 28, generator=random))
            texts += list(torch.randint(3, DEC, (1 + number % 2, 5), generator=random))
            owners += [place] * (1 + number % 2)
        token_ids = torch.stack(texts)
        return [
            Batch(
                sample_ids=tuple(map(str, self._numbers)),
                pixels=torch.stack(pixels),
                token_ids=token_ids,
                attention_mask=torch.ones_like(token_ids, dtype=torch.bool),
                image_of_text=torch.tensor(owners),
            )
        ]


def remembered(services: Services, stream: Texts) -> dict[str, Tensor]:
    """Weights after a few steps, the last loss, a slow copy, and what the queues hold."""
    model = med(form=FORM)
    assert model.momentum is not None
    model.momentum.others = services.processes
    model.begin()
    split = set_trainable(model, ("vision", "text", "encoder", "heads"))
    trainer = Trainer(
        model=model,
        split=split,
        objectives={"contrastive": (MomentumContrastive(model), 1.0)},
        stream=stream,
        settings=SETTINGS,
        services=services,
    )
    loss = trainer.run().loss
    kept = {f"momentum.{name}": one for name, one in model.momentum.named_buffers()}
    return {name: p.detach() for name, p in split.trainable.items()} | kept | {"loss": torch.tensor(loss)}
