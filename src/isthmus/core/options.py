"""What a person chooses for one command, whatever the recipe says; never imports torch."""

import re
from dataclasses import dataclass
from typing import Literal

from isthmus.core.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]
"""Number format of matrix products; `auto` takes bf16 where the machine has it in hardware and the model is wide enough
to gain."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Settings of one command line.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: Number format of matrix products.
        seed: Replaces the recipe's seed; None keeps it.
        allow_network: Whether hub names may be fetched; otherwise only what is on this machine is used.
        json: Whether stdout is reserved for one JSON object; progress and notes go to stderr.
        terminal: Whether progress is drawn for a person at a terminal; otherwise plain lines are written.
    """

    device: str = "auto"
    precision: Precision = "auto"
    seed: int | None = None
    allow_network: bool = False
    json: bool = False
    terminal: bool = False

    def __post_init__(self) -> None:
        """Refuse a device of no kind; whether it is there is asked later, by those who can import torch.

        Raises:
            UsageError: The name is none of those above.
        """
        if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is None:
            raise UsageError(f"'{self.device}' is no device; expected auto, cpu, cuda, cuda:N or mps")
