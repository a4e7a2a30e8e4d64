"""What a person chooses for one command, whatever the recipe says; never imports torch."""

from dataclasses import dataclass
from typing import Literal

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
