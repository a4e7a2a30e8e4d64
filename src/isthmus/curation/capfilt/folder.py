"""An output folder that several processes fill, block by block; a block is there as a whole or not at all."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from isthmus.core.errors import CheckpointError, MachineError
from isthmus.core.files import replacing
from isthmus.curation.capfilt.blocks import Decided
from isthmus.curation.capfilt.pairs import write_pairs
from isthmus.data.sources.shards import escaped

_LOCKS = "locks"


def pairs_in(folder: Path) -> str:
    """What a recipe reads of an output folder, as `kind: shards`: a pattern."""
    return f"{escaped(folder)}/pairs-*.tar"


@final
@dataclass(frozen=True)
class Share:
    """Which blocks a process works on: every `num`-th, from the `number`-th on; both are counted from 1."""

    number: int = 1
    num: int = 1

    def blocks(self, num_blocks: int) -> range:
        """The share's blocks."""
        return range(self.number - 1, num_blocks, self.num)


@final
@dataclass(frozen=True)
class CapfiltFolder:
    """The places in an output folder.

    Attributes:
        path: The folder.
        num_blocks: Into how many blocks the source is cut.
    """

    path: Path
    num_blocks: int

    @property
    def settings(self) -> Path:
        """What decides the result; a folder of other settings is refused."""
        return self.path / "settings.json"

    @property
    def decisions(self) -> Path:
        """Every caption with its score, one JSON object a line; there when all blocks are."""
        return self.path / "decisions.jsonl"

    @property
    def summary(self) -> Path:
        """The counts; there when all blocks are."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def pairs(self) -> str:
        """The kept pairs, as a pattern."""
        return pairs_in(self.path)

    def lock(self, share: Share) -> Path:
        """Where the lock of a share lies."""
        return self.path / _LOCKS / f"{share.number}-of-{share.num}"

    def block(self, block: int) -> Path:
        """The decisions of a block; there when the block is done."""
        return self.path / "blocks" / f"{block:06d}.jsonl"

    def is_done(self, block: int) -> bool:
        """Whether an earlier sitting or another process finished a block."""
        return self.block(block).is_file()

    @property
    def is_whole(self) -> bool:
        """Whether all blocks are done."""
        return all(self.is_done(block) for block in range(self.num_blocks))

    def open(self, settings: Mapping[str, Any], *, share: Share, resume: bool) -> None:
        """Make the folder, or join it where it is of the same settings.

        Raises:
            CheckpointError: It holds something and is not to be gone on with, or it is of other settings.
            MachineError: It cannot be made.
        """
        if self.path.is_file():
            raise CheckpointError(
                f"{self.path} is a file; expected a folder for the output, choose another --out"
            )
        names = {entry.name for entry in self.path.iterdir()} - {_LOCKS} if self.path.is_dir() else set()
        if names and not self.settings.is_file():
            raise CheckpointError(
                f"{self.path} holds {min(names)} and no {self.settings.name} to go on with; choose another --out"
            )
        if names and not resume and (share.num == 1 or self._begun(share)):
            raise CheckpointError(
                f"{self.path} exists and holds {min(names)}; go on with --resume, or choose another --out"
            )
        try:
            (self.path / "blocks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(
                f"{self.path} cannot be made ({error.strerror}); choose another --out"
            ) from error
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        if not self.settings.is_file():
            _replace(self.settings, [text])
        self._compare(json.loads(text))

    def _begun(self, share: Share) -> bool:
        return any(self.is_done(block) for block in share.blocks(self.num_blocks))

    def _compare(self, settings: Mapping[str, Any]) -> None:
        try:
            there = json.loads(self.settings.read_text(encoding="utf-8"))
            found = {name: there[name] for name in settings}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.settings} is damaged; restore it, or write to another folder"
            ) from error
        for name, value in settings.items():
            if found[name] != value:
                raise CheckpointError(
                    f"{self.path} was made with {name} = {found[name]}, and now it is {value}; go on with the same "
                    "settings, or write to another folder"
                )

    def keep(self, block: int, decided: Sequence[Decided]) -> None:
        """Write a block: its pairs, then its decisions, whose name says that the block is done.

        Raises:
            MachineError: The disk refuses.
        """
        write_pairs(self.path / f"pairs-{block:06d}.tar", decided)
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for one in decided for line in one.lines())
        _replace(self.block(block), lines)

    def lines(self) -> Iterator[dict[str, Any]]:
        """The decisions of all blocks that are done, in the order of the source.

        Raises:
            CheckpointError: A block's file is damaged.
        """
        for block in range(self.num_blocks):
            if not self.is_done(block):
                continue
            with self.block(block).open("rb") as file:
                for number, line in enumerate(file, start=1):
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise CheckpointError(
                            f"{self.block(block)} line {number} is damaged; remove the file and go on with --resume"
                        ) from error

    def merge(self) -> None:
        """Write `decisions.jsonl` from all blocks.

        Raises:
            CheckpointError: A block's file is damaged.
            MachineError: The disk refuses.
        """
        _replace(self.decisions, (json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines()))

    def counts(self) -> dict[str, Any]:
        """How many captions were looked at, kept and dropped: in all, by where they come from, and why."""
        written: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {"web": Counter(), "synthetic": Counter()}
        pictures: set[int] = set()
        unusable: set[int] = set()
        for line in self.lines():
            origin = line["from"]
            if line["score"] is None and line["reason"] not in ("", "empty"):
                unusable.add(line["row"])
            if line["caption"] is None:
                continue
            written[origin] += 1
            kept[origin] += line["kept"]
            if line["kept"]:
                pictures.add(line["row"])
            else:
                reasons[origin][line["reason"] if line["row"] not in unusable else "unusable picture"] += 1
        return {
            "written": written.total(),
            "kept": kept.total(),
            "dropped": written.total() - kept.total(),
            "pictures": len(pictures),
            "unusable_pictures": len(unusable),
            "by_origin": {
                origin: {"written": written[origin], "kept": kept[origin], "dropped": dict(dropped)}
                for origin, dropped in reasons.items()
            },
        }


def _replace(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.writelines(lines)
