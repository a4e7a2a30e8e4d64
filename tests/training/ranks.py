"""What one of three processes computes: `python -m tests.training.ranks RANK FOLDER`; rank 0 writes what all agree on."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from isthmus.core.batch import Batch
from isthmus.core.protocols import Objective
from isthmus.objectives.contrastive import Contrastive
from isthmus.objectives.representations import Compares, Representations, share_in_blocks
from isthmus.objectives.sigmoid import Sigmoid
from isthmus.training.distributed import ProcessGroup, gathered
from isthmus.training.exchange import NamedGroup, all_rows
from isthmus.training.optimizer import OptimizerSettings
from isthmus.training.parameters import set_trainable
from isthmus.training.settings import Services, StageSettings
from isthmus.training.trainer import Trainer

from .pairs import PairModel, PairStream
from .remembering import Texts, remembered
from .toy import ToyModel, ToyNextToken, ToyStream

NUM = 3
ROWS = (2, 2)
SHARES = (3, 2, 4)
"""Pictures of each process where slow copies are trained with: more, over three steps, than the queues hold."""
STEPS = 3
SETTINGS = StageSettings(
    stage="pairs",
    seed=5,
    num_steps=STEPS,
    precision="fp32",
    optimizer=OptimizerSettings(lr=0.01, clip=0.5),
)
OBJECTIVES: dict[str, Callable[[PairModel], Objective]] = {"contrastive": Contrastive, "sigmoid": Sigmoid}


def trained(name: str, services: Services, stream: PairStream) -> dict[str, Tensor]:
    """Weights after a few steps with dropout, and the last loss."""
    model = PairModel()
    split = set_trainable(model, ("image", "text", "scale"))
    if name == "contrastive":
        split.trainable.pop("scale.1")
        model.scale[1].requires_grad_(False)
    trainer = Trainer(
        model=model,
        split=split,
        objectives={name: (OBJECTIVES[name](model), 1.0)},
        stream=stream,
        settings=SETTINGS,
        services=services,
    )
    loss = trainer.run().loss
    return {name: p.detach() for name, p in split.trainable.items()} | {"loss": torch.tensor(loss)}


class Part(ToyStream):
    """Some of the micro-batches of a step, whose rows have different numbers of tokens."""

    def __init__(self, part: slice) -> None:
        super().__init__(rows=(3, 2, 1, 4), dtype=torch.float64)
        self._part = part

    def micro_batches(self, step: int) -> list[Batch]:
        return super().micro_batches(step)[self._part]


def read(services: Services, part: slice) -> dict[str, Tensor]:
    """Weights after the same steps of next-token prediction, with dropout."""
    model = ToyModel(dropout=0.3).double()
    split = set_trainable(model, ("connector", "language"))
    trainer = Trainer(
        model=model,
        split=split,
        objectives={"next_token": (ToyNextToken(model), 1.0)},
        stream=Part(part),
        settings=SETTINGS,
        services=services,
    )
    loss = trainer.run().loss
    return {name: p.detach() for name, p in split.trainable.items()} | {"loss": torch.tensor(loss)}


def messages(processes: ProcessGroup) -> dict[str, Tensor]:
    """What the smaller messages give: gradients that one process lacks, numbers, copies."""
    rank = processes.rank
    some, none = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
    if rank == 1:
        some.grad = torch.full((2, 2), 5.0)
    processes.sum_gradients([some, none])
    assert none.grad is None
    assert some.grad is not None
    copied = torch.full((3,), float(rank + 7))
    processes.copy_from_first([copied])
    stops = [processes.any_of(None), processes.any_of(15 if rank == 1 else None)]
    return {
        "gradient": some.grad,
        "copied": copied,
        "stops": torch.tensor([-1 if stop is None else stop for stop in stops]),
        "sum": processes.all_sum(torch.tensor([1.0, float(rank)])),
    }


def rows_of(rank: int) -> list[Batch]:
    """Another number of pictures in each process."""
    return PairStream([rank + 2], first=sum(range(2, rank + 2)), texts_a_picture=2).micro_batches(0)


def one_step(
    objective: Compares, model: PairModel, rank: int, loss: Callable[[Representations], Tensor]
) -> dict[str, Tensor]:
    """This process's gradient of `loss`, and `loss` itself."""
    model.eval()
    (batch,) = rows_of(rank)
    value = loss(objective.representations(model.encode(batch), batch))
    value.backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return found | {"loss": value.detach()}


def without_gradients(model: PairModel, given: Representations, group: NamedGroup, *, local: bool) -> Tensor:
    """The loss as it is often written: other processes' vectors come without a gradient (one text a picture)."""
    images, texts = given.image_views[:, 0], given.text_vectors
    sizes = [size[0] for size in group.sizes(len(images))]
    first = sum(sizes[: group.rank])
    own = slice(first, first + len(images))
    every_image, every_text = all_rows(images, sizes, group), all_rows(texts, sizes, group)
    if not local:
        every_image, every_text = every_image.clone(), every_text.clone()
        every_image[own], every_text[own] = images, texts
        images, texts, own = every_image, every_text, slice(0, len(every_image))
    targets = torch.arange(own.start, own.stop)
    to_text = functional.cross_entropy(model.scale[0] * images @ every_text.T, targets)
    to_image = functional.cross_entropy(model.scale[0] * texts @ every_image.T, targets)
    return (to_text + to_image) / 2


def main(rank: int, folder: Path) -> None:
    found: dict[str, dict[str, Tensor]] = {}
    pair = dist.new_group([0, 1])
    for num, group in ((2, pair), (NUM, None)):
        if rank >= num:
            continue
        processes = ProcessGroup(group=group)
        if num == 2:
            found["read"] = read(Services(processes=processes), slice(2 * rank, 2 * rank + 2))
            found["messages"] = messages(processes)
        for name in OBJECTIVES:
            for texts in (1, 3):
                stream = PairStream(ROWS, first=rank * sum(ROWS), texts_a_picture=texts)
                found[f"trained {name} {texts} {num}"] = trained(name, Services(processes=processes), stream)
        services, first = Services(processes=processes), sum(SHARES[:rank])
        found[f"remembered {num}"] = remembered(services, Texts(SHARES[rank], first=first))
    every = NamedGroup(device=torch.device("cpu"), group=None)
    processes = ProcessGroup()
    for name in ("contrastive", "sigmoid"):
        model = PairModel()
        objective = OBJECTIVES[name](model)
        assert isinstance(objective, Compares)
        loss = lambda given, o=objective: processes.share(o, given)  # noqa: E731
        found[f"uneven {name}"] = one_step(objective, model, rank, loss)
    model = PairModel()
    objective = Sigmoid(model)
    found["gathered sigmoid"] = one_step(
        objective, model, rank, lambda given: share_in_blocks(objective, *gathered(given, every))
    )
    for case in [case for case in found if case.startswith(("uneven", "gathered"))]:
        for tensor in found[case].values():
            dist.all_reduce(tensor)
    for local in (True, False):
        model = PairModel().eval()
        (batch,) = PairStream([2], first=2 * rank).micro_batches(0)
        given = Contrastive(model).representations(model.encode(batch), batch)
        value = without_gradients(model, given, every, local=local)
        value.backward()
        tensors = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        tensors["loss"] = value.detach()
        for tensor in tensors.values():
            dist.all_reduce(tensor)
            tensor /= NUM
        found["local without" if local else "global without"] = tensors
    if rank == 0:
        flat = {f"{case}/{name}": t.clone() for case, tensors in found.items() for name, t in tensors.items()}
        save_file(flat, folder / "found.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    place = Path(sys.argv[2])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{place / 'meeting'}",
        rank=int(sys.argv[1]),
        world_size=NUM,
        timeout=timedelta(seconds=60),
    )
    main(int(sys.argv[1]), place)
    dist.barrier()
    dist.destroy_process_group()
