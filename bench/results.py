"""Pages of measured numbers: title, the command that makes it, machine, date, tables; beside each page a JSON file."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from isthmus.core.files import write_json
from isthmus.run.directory import environment

FOLDER = Path(__file__).parents[1] / "docs" / "results"


@final
@dataclass
class Page:
    """A results page in the making.

    Attributes:
        title: The heading.
        command: What makes the page again, from the root of the repository.
        blocks: Paragraphs and tables in order.
    """

    title: str
    command: str
    blocks: list[str] = field(default_factory=list)

    def say(self, *sentences: str) -> None:
        """Add a paragraph."""
        self.blocks.append(" ".join(sentences))

    def head(self, title: str) -> None:
        """Begin a section."""
        self.blocks.append(f"## {title}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; every column but the first is set right."""
        lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
        self.blocks.append("\n".join(f"| {' | '.join(_cell(one) for one in cells)} |" for cells in lines))

    def text(self) -> str:
        """The page in Markdown."""
        head = [
            f"# {self.title}",
            f"Made by `{self.command}` on {datetime.date.today():%Y-%m-%d}.",
            machine_line(),
        ]
        return "\n\n".join([*head, *self.blocks]) + "\n"

    def write(self, name: str, data: dict[str, Any]) -> Path:
        """Write `NAME.md` and `NAME.json` into docs/results and print the page."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        target = FOLDER / f"{name}.md"
        target.write_text(self.text(), encoding="utf-8")
        made = {"title": self.title, "command": self.command, "date": f"{datetime.date.today():%Y-%m-%d}"}
        write_json(FOLDER / f"{name}.json", made | {"machine": machine()} | data)
        print(self.text())
        return target


def machine() -> dict[str, Any]:
    """Processor, cores, load when asked, and what else a number may depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        **environment(),
    }


def machine_line() -> str:
    """The machine in one sentence."""
    found = machine()
    return (
        f"Machine: {found['processor']}, {found['cores']} cores ({found['cpu_capability']}), {found['system']}, "
        f"Python {found['python']}, torch {torch.__version__}, transformers {found['packages']['transformers']}; "
        f"{found['threads']} threads, load {found['load']} when the page was written."
    )


def percent(share: float) -> str:
    """0.1637 as 16.4."""
    return f"{100 * share:.1f}"


def interval(found: dict[str, float], *, scale: float = 1.0, digits: int = 3) -> str:
    """A value with its 95% interval: `0.451 [0.430, 0.473]`."""
    value, low, high = (f"{scale * found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def named(run: Path) -> str:
    """A run as a page shows it: its own name, not where it lies."""
    return f"runs/{run.resolve().name}"


def _cell(text: str) -> str:
    """Text that cannot end its own cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
