"""Who takes part in a run: one process by itself, or those that `torchrun` started, each with a card of its own."""

import pytest
import torch

from isthmus.core.errors import MachineError
from isthmus.training.distributed import Alone
from isthmus.training.launch import first_alone, processes_of_run, wait_for_all


@pytest.mark.parametrize("size", [None, "1"])
def test_without_torchrun_a_process_is_alone_and_never_waits(
    monkeypatch: pytest.MonkeyPatch, size: str | None
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with processes_of_run("auto") as processes:
        assert isinstance(processes, Alone)
        assert (processes.rank, processes.num) == (0, 1)
        with first_alone(processes):
            wait_for_all(processes)


@pytest.mark.parametrize(
    ("device", "rank", "says"),
    [
        ("cuda:1", 0, "--device cuda:1 names one card for several processes"),
        ("auto", 2, "process 2 of this machine has no card: there are 2; start at most 2"),
    ],
)
def test_cards_are_dealt_out_or_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, rank: int, says: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MachineError, match=says), processes_of_run(device):
        pass
