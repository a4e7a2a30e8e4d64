"""Messages between processes: sizes, rows of all of them, and rows passed to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class NamedGroup:
    """Processes that talk to each other, seen from one of them.

    Attributes:
        device: Where the tensors of messages live.
        group: Which processes; None: all of them.
    """

    device: torch.device
    group: dist.ProcessGroup | None

    @property
    def rank(self) -> int:
        """The number of this process, counted from 0."""
        return dist.get_rank(self.group)

    @property
    def num(self) -> int:
        """How many there are."""
        return dist.get_world_size(self.group)

    def sizes(self, *own: int) -> list[list[int]]:
        """A few numbers of every process, in the order of ranks."""
        found = torch.zeros(self.num, len(own), dtype=torch.int64, device=self.device)
        found[self.rank] = torch.tensor(own)
        dist.all_reduce(found, group=self.group)
        return found.tolist()

    def global_rank(self, rank: int) -> int:
        """The number under which all processes of the run know one of this group."""
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def padded(rows: Tensor, num_rows: int) -> Tensor:
    """Rows filled up with zeros, in memory of their own: processes may have different numbers of texts."""
    filled = rows.new_zeros(num_rows, *rows.shape[1:])
    filled[: rows.shape[0]] = rows
    return filled


def all_rows(own: Tensor, sizes: Sequence[int], group: NamedGroup) -> Tensor:
    """The rows of all processes in the order of ranks; `sizes` says how many each has."""
    sent = padded(own.detach(), max(sizes))
    received = [torch.empty_like(sent) for _ in sizes]
    dist.all_gather(received, sent, group=group.group)
    return torch.cat([rows[:size] for rows, size in zip(received, sizes, strict=True)])


def pass_on(tensors: Sequence[Tensor], group: NamedGroup) -> list[Tensor]:
    """Give these tensors to the next process of the ring and take those of the one before."""
    after, before = (group.global_rank((group.rank + step) % group.num) for step in (1, -1))
    received = [torch.empty_like(tensor) for tensor in tensors]
    messages = [dist.P2POp(dist.isend, tensor.contiguous(), after, group.group) for tensor in tensors]
    messages += [dist.P2POp(dist.irecv, tensor, before, group.group) for tensor in received]
    for message in dist.batch_isend_irecv(messages):
        message.wait()
    return received
