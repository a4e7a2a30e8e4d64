"""The output folder of `isthmus curate capfilt`: decisions block by block, then tables, a summary and a page."""

import json
from collections import Counter as Tallied
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from isthmus.core.errors import CheckpointError
from isthmus.data.samples import Source
from isthmus.run.capfilt_page import write_page
from isthmus.training.durability import write_json


@final
@dataclass(frozen=True)
class CapFiltDirectory:
    """The places in an output folder."""

    path: Path

    @property
    def settings(self) -> Path:
        """What was asked, so that nothing else is mixed in."""
        return self.path / "settings.json"

    @property
    def decisions(self) -> Path:
        """Every caption with its score and what became of it, one JSON object a line."""
        return self.path / "decisions.jsonl"

    @property
    def captions(self) -> Path:
        """What is kept, one JSON object a picture; a source of kind `recaptioned` reads it."""
        return self.path / "captions.jsonl"

    @property
    def report(self) -> Path:
        """Kept and dropped captions beside their pictures."""
        return self.path / "report.html"

    def block(self, number: int) -> Path:
        """The decisions about one block."""
        return self.path / "blocks" / f"{number:06d}.json"

    def begin(self, settings: dict[str, Any], *, resume: bool) -> None:
        """Refuse a folder that holds something else.

        Raises:
            CheckpointError: It is a file, it exists and is not to be gone on with, or it was begun otherwise.
        """
        if self.path.is_file():
            raise CheckpointError(
                f"{self.path} is a file; expected a folder for the output, choose another --out"
            )
        blocks = self.block(0).parent
        # Of several processes that begin together each may find what another has just made.
        if not self.path.is_dir() or {entry.name for entry in self.path.iterdir()} <= {blocks.name}:
            blocks.mkdir(parents=True, exist_ok=True)
            write_json(self.settings, settings)
            return
        if not self.settings.is_file():
            raise CheckpointError(f"{self.path} exists and holds something else; choose another --out")
        begun = json.loads(self.settings.read_text(encoding="utf-8"))
        others = sorted(name for name in settings if begun.get(name) != settings[name])
        if others:
            raise CheckpointError(
                f"{self.path} was begun with another {', '.join(others)}; ask for the same, or choose another --out"
            )
        if not resume:
            raise CheckpointError(f"{self.path} exists; go on with --resume, or choose another --out")


def assemble(
    directory: CapFiltDirectory, source: Source, num_blocks: int, rule: str, seconds: float
) -> dict[str, Any]:
    """Write the tables and the report from all blocks.

    Args:
        directory: The folder; every block is there.
        source: What was judged.
        num_blocks: How many blocks it has.
        rule: What decided, in words.
        seconds: How long this process took.

    Returns:
        What the command says.
    """
    rows: list[dict[str, Any]] = []
    bad: dict[str, None] = {}
    for number in range(num_blocks):
        found = json.loads(directory.block(number).read_text(encoding="utf-8"))
        rows += found["rows"]
        bad |= dict.fromkeys(found["bad"])
    _write_lines(
        directory.decisions,
        ({"index": row["index"], "id": row["id"]} | one for row in rows for one in row["decisions"]),
    )
    _write_lines(
        directory.captions,
        ({"index": row["index"], "id": row["id"]} | _kept(row["decisions"]) for row in rows),
    )
    decided = [one for row in rows for one in row["decisions"]]
    origins = {
        origin: {
            "captions": sum(one["origin"] == origin for one in decided),
            "kept": sum(one["origin"] == origin and one["kept"] for one in decided),
        }
        for origin in ("web", "synthetic")
    }
    kept = sum(one["kept"] for one in decided)
    result = {
        "written": origins["synthetic"]["captions"],
        "kept": kept,
        "dropped": len(decided) - kept,
        "reasons": dict(Tallied(one["dropped"] for one in decided if one["dropped"] is not None)),
        "origins": origins,
        "pictures": len(rows),
        "skipped": list(bad),
        "complete": True,
        "seconds": seconds,
        "file": str(directory.captions),
        "decisions": str(directory.decisions),
        "report": str(directory.report),
    }
    write_page(result, rows, source, directory.report, rule=rule)
    write_json(directory.path / "summary.json", result)
    return result


def _kept(decisions: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {
        origin: [one["caption"] for one in decisions if one["kept"] and one["origin"] == origin]
        for origin in ("web", "synthetic")
    }


def _write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    beside = file.with_suffix(".part")
    with beside.open("w", encoding="utf-8") as target:
        target.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    beside.replace(file)
