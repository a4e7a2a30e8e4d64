"""Several processes that train one model: what they add up, and how a loss sees the batch of all of them."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, final

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isthmus.objectives.representations import (
    Block,
    Compares,
    Representations,
    share_in_blocks,
    whole,
)
from isthmus.objectives.sigmoid import Sigmoid
from isthmus.training.exchange import NamedGroup, all_rows
from isthmus.training.ring import ring_share

_BUCKET = 1 << 24
"""Numbers that are added up by one message."""


class Processes(Protocol):
    """The processes of a run, seen from one of them."""

    @property
    def rank(self) -> int:
        """The number of this process, counted from 0."""
        ...

    @property
    def num(self) -> int:
        """How many there are."""
        ...

    def all_sum(self, numbers: Float[Tensor, " number"]) -> Float[Tensor, " number"]:
        """A vector summed over all processes."""
        ...

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes (not its mean: counts are already global)."""
        ...

    def any_of(self, number: int | None) -> int | None:
        """The largest number that any process gives, or None where none gives one."""
        ...

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of process 0, so that all start from the same bits."""
        ...

    def every(self, own: Float[Tensor, "own dim"]) -> tuple[Float[Tensor, "every dim"], int]:
        """The rows of all processes in the order of ranks, without a gradient, and the place of this one's first."""
        ...

    def share(self, objective: Compares, representations: Representations) -> Float[Tensor, ""]:
        """What this process's rows add to the loss of the rows of all processes, with gradients for all of them."""
        ...


@final
class Alone:
    """The `Processes` of a run with one."""

    rank = 0
    num = 1

    def all_sum(self, numbers: Float[Tensor, " number"]) -> Float[Tensor, " number"]:
        """The vector itself."""
        return numbers

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Nothing to add."""

    def any_of(self, number: int | None) -> int | None:
        """The number itself."""
        return number

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Nothing to copy."""

    def every(self, own: Float[Tensor, "own dim"]) -> tuple[Float[Tensor, "every dim"], int]:
        """The rows themselves."""
        return own, 0

    def share(self, objective: Compares, representations: Representations) -> Float[Tensor, ""]:
        """The whole loss."""
        return share_in_blocks(objective, representations, whole(representations))


@final
class ProcessGroup:
    """Processes that talk through `torch.distributed`.

    Args:
        device: Where the tensors of messages live: the processor for gloo, this process's card for NCCL.
        group: Which processes; None: all of them.
    """

    def __init__(self, *, device: torch.device | str = "cpu", group: dist.ProcessGroup | None = None) -> None:
        self._group = NamedGroup(device=torch.device(device), group=group)

    @property
    def rank(self) -> int:
        """The number of this process, counted from 0."""
        return self._group.rank

    @property
    def num(self) -> int:
        """How many there are."""
        return self._group.num

    def all_sum(self, numbers: Float[Tensor, " number"]) -> Float[Tensor, " number"]:
        """A vector summed over all processes, back on its own device."""
        total = numbers.to(self._group.device, copy=True)
        dist.all_reduce(total, group=self._group.group)
        return total.to(numbers.device)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum; a parameter that no process has a gradient for keeps none."""
        every = list(parameters)
        known = self.all_sum(torch.tensor([float(p.grad is not None) for p in every])).tolist()
        learning = [parameter for parameter, count in zip(every, known, strict=True) if count]
        for bucket in _buckets(learning):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            total = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(total, group=self._group.group)
            parts = total.split([gradient.numel() for gradient in gradients])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter).clone()

    def any_of(self, number: int | None) -> int | None:
        """The largest number that any process gives, or None where none gives one."""
        largest = torch.tensor(-1 if number is None else number, device=self._group.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._group.group)
        return None if largest.item() < 0 else int(largest.item())

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of process 0."""
        for tensor in tensors:
            sent = tensor.to(self._group.device, copy=True)
            dist.broadcast(sent, self._group.global_rank(0), group=self._group.group)
            tensor.copy_(sent)

    def every(self, own: Float[Tensor, "own dim"]) -> tuple[Float[Tensor, "every dim"], int]:
        """All rows, gathered, and where this process's begin."""
        sizes = [size[0] for size in self._group.sizes(len(own))]
        return all_rows(own, sizes, self._group), _span(sizes, self.rank).start

    def share(self, objective: Compares, representations: Representations) -> Float[Tensor, ""]:
        """Texts go round the ring where pairs are judged one by one; else all vectors are gathered.

        Each process computes only the rows of its own part, but the gradient of vectors that came from others goes back
        to them, so that gradients summed over processes equal those of one process with the whole batch. Without that
        way back each vector would learn only from its own rows of the similarities, which is another direction.
        """
        if isinstance(objective, Sigmoid):
            return ring_share(objective, representations, self._group)
        every, own = gathered(representations, self._group)
        return share_in_blocks(objective, every, own)


def gathered(representations: Representations, group: NamedGroup) -> tuple[Representations, Block]:
    """The representations of all processes in the order of ranks, and which of them are this process's."""
    images, texts = representations.image_views, representations.text_vectors
    sizes = group.sizes(images.shape[0], texts.shape[0])
    num_images, num_texts = [size[0] for size in sizes], [size[1] for size in sizes]
    owners = all_rows(representations.image_of_text, num_texts, group)
    firsts = torch.tensor([sum(num_images[:rank]) for rank in range(group.num)], device=owners.device)
    owners = owners + firsts.repeat_interleave(torch.tensor(num_texts, device=owners.device))
    every = Representations(
        image_views=_Gather.apply(images, num_images, group),
        text_vectors=_Gather.apply(texts, num_texts, group),
        image_of_text=owners,
    )
    return every, Block(images=_span(num_images, group.rank), texts=_span(num_texts, group.rank))


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards each process gets what all of them found for its rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int], group: NamedGroup) -> Tensor:
        ctx.own, ctx.group = _span(sizes, group.rank), group
        return all_rows(own, sizes, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group.group)
        return total[ctx.own], None, None


def _span(sizes: Sequence[int], rank: int) -> slice:
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    """Neighbouring parameters of one number format, about `_BUCKET` numbers a bucket."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        size = sum(one.numel() for one in bucket)
        if bucket and (parameter.dtype != bucket[0].dtype or size + parameter.numel() > _BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
