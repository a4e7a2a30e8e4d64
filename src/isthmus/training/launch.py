"""The processes that `torchrun` starts, and who goes first where files are written."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from isthmus.core.errors import MachineError
from isthmus.training.distributed import Alone, Processes, ProcessGroup

_PATIENCE = timedelta(days=1)
"""How long a process waits for others: the first may store features or validate. `torchrun` ends all when one dies."""


@contextlib.contextmanager
def processes_of_run(device: str) -> Iterator[Processes]:
    """The processes that `torchrun` started, or this one alone; cards are dealt out by `LOCAL_RANK`.

    Args:
        device: What the command line asks for: `auto`, `cpu` or `cuda`.

    Raises:
        MachineError: There are fewer cards than processes, or one card is named for all.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone()
        return
    on_card = device != "cpu" and torch.cuda.is_available()
    if on_card:
        _take_card(device)
    dist.init_process_group("nccl" if on_card else "gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(device="cuda" if on_card else "cpu")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def first_alone(processes: Processes) -> Iterator[None]:
    """Let process 0 through the block before the others, so that they find what it wrote."""
    if processes.rank > 0:
        wait_for_all(processes)
    yield
    if processes.rank == 0:
        wait_for_all(processes)


def wait_for_all(processes: Processes) -> None:
    """Go on when every process is here."""
    processes.all_sum(torch.zeros(1))


def _take_card(device: str) -> None:
    rank, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.startswith("cuda:"):
        raise MachineError(
            f"--device {device} names one card for several processes; expected auto, cuda or cpu, "
            "with which each takes its own"
        )
    if rank >= found:
        raise MachineError(
            f"process {rank} of this machine has no card: there are {found}; start at most {found} with "
            "--nproc-per-node, or take --device cpu"
        )
    torch.cuda.set_device(rank)
