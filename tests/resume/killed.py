"""Runs the case until the second checkpoint and kills this process, without any warning, while it is saved."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from tests.resume.case import Run

from isthmus.training.durability import write_tensors


def main(directory: Path, when: str) -> None:
    saves = 0

    def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        nonlocal saves
        saves += 1
        if saves < 2:
            write_tensors(path, tensors)
            return
        if when == "middle":
            write_tensors(path, tensors)
            os.truncate(path, path.stat().st_size // 2)
        if when == "end":
            write_tensors(path, tensors)
        os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    Run(directory, write=write).trainer.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
