"""Instruction data from captions and boxes, by a writer that never sees a picture (Liu et al., 2023, section 3)."""

import hashlib
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from isthmus.config.instructions import FactOptions, PaceOptions
from isthmus.core.errors import CheckpointError, DataError, GuardError, Stopped, UsageError
from isthmus.core.files import file_hash, replacing, write_json
from isthmus.core.options import RunOptions
from isthmus.curation.instructions.asking import ask_all
from isthmus.curation.instructions.facts import Facts, read_coco, read_facts, scene_facts
from isthmus.curation.instructions.grammar import GrammarWriter
from isthmus.curation.instructions.journal import Journal
from isthmus.curation.instructions.pace import Budget
from isthmus.curation.instructions.prompts import SHIPPED, Prompts
from isthmus.curation.instructions.rows import Rows, assemble, usable
from isthmus.curation.instructions.vocabulary import Vocabulary, read_synonyms
from isthmus.curation.instructions.writer import Request, Writer
from isthmus.data.scenes import Scenes
from isthmus.run.progress import Counter, console_of
from isthmus.training.lock import DirectoryLock
from isthmus.training.signals import StopAsked, StopSignals

SCENES = "scenes"
"""What stands in place of a file for the built-in world."""

_NUM_SCENES = 100
_LOCK = "run.lock"


@final
@dataclass(frozen=True)
class InstructDirectory:
    """The places in an output folder."""

    path: Path

    @property
    def conversations(self) -> Path:
        """LLaVA's JSON."""
        return self.path / "conversations.json"

    @property
    def rejects(self) -> Path:
        """What became no row, one JSON object a line."""
        return self.path / "rejects.jsonl"

    @property
    def journal(self) -> Path:
        """All replies, as they came."""
        return self.path / "journal.jsonl"

    @property
    def images(self) -> Path:
        """The drawn scenes."""
        return self.path / "images"

    def open(self, *, resume: bool) -> None:
        """Refuse a folder that holds something, unless it is to be gone on with.

        Raises:
            CheckpointError: It holds something, or it is a file.
        """
        if self.path.is_file():
            raise CheckpointError(
                f"{self.path} is a file; expected a folder for the output, choose another --out"
            )
        names = {entry.name for entry in self.path.iterdir()} - {_LOCK} if self.path.is_dir() else set()
        if names and not resume:
            raise CheckpointError(
                f"{self.path} exists and holds {min(names)}; go on with --resume, or choose another --out"
            )
        if names and not self.journal.is_file():
            raise CheckpointError(
                f"{self.path} holds no {self.journal.name} to go on with; choose another --out"
            )


@final
@dataclass(frozen=True, kw_only=True)
class NamedWriter:
    """Who writes.

    Attributes:
        writer: Answers requests.
        name: Everything that decides what is written; a journal of another is refused.
        concurrency: How many requests are under way at once.
    """

    writer: Writer
    name: str
    concurrency: int = 1


def write_instructions(
    facts: str,
    *,
    directory: InstructDirectory,
    about: FactOptions,
    open_writer: Callable[[], NamedWriter],
    pace: PaceOptions,
    signals: AbstractContextManager[StopSignals],
    options: RunOptions,
) -> dict[str, Any]:
    """Ask a writer about every picture and keep what passes the checks; replies that are there are not asked for again.

    Args:
        facts: `scenes`, a JSONL file of ours, or COCO's captions file.
        directory: The output folder, opened.
        about: Which pictures and kinds.
        open_writer: Called when the facts are known to be good.
        pace: What it may cost.
        signals: Where a stop is noted, entered while replies are asked for.
        options: Seed, and how to report.

    Raises:
        DataError: The facts are damaged, or no reply could be kept.
        CheckpointError: The folder was made with other facts, prompts or another writer.
        GuardError: The money ran out; what is written stays.
        Stopped: A signal came; what is written stays.
    """
    started, seed = time.monotonic(), options.seed or 0
    rows = Rows()
    told = usable(_facts(facts, about, seed), rows)
    prompts = Prompts.read(about.prompts or SHIPPED)
    by = open_writer()
    requests = [prompts.request(one, kind, seed=seed) for one in told for kind in about.chosen]
    repeats = isinstance(by.writer, GrammarWriter)
    if repeats and told[0].scene is None:
        by.writer.write(requests[0])
    settings = {
        "facts": _named(facts, about, seed),
        "writer": by.name,
        "prompts": prompts.digest,
        "seed": seed,
    }
    budget = Budget(price_in=pace.price_in, price_out=pace.price_out, most=pace.max_cost)
    with DirectoryLock(directory.path), Journal(directory.journal, settings) as journal:
        try:
            _ask(requests, by, journal, budget, signals=signals, options=options)
        finally:
            vocabulary = Vocabulary((box.label for one in told for box in one.boxes), read_synonyms())
            assemble(requests, journal.replies, rows, vocabulary, repeats=repeats)
            rows.write(directory.conversations, directory.rejects)
            _draw(told, rows, directory.images, _world(about, seed))
            result = _result(directory, rows, budget, len(requests), time.monotonic() - started)
            write_json(directory.path / "summary.json", result)
    _require_some(rows, directory)
    return result


def _require_some(rows: Rows, directory: InstructDirectory) -> None:
    """Refuse to end well where nothing came of it."""
    if rows.kept:
        return
    most = next(iter(rows.reasons))
    raise DataError(
        f"none of {len(rows.rejects):,} replies could be kept; {rows.reasons[most]:,} of them for the reason "
        f"'{most}'; {directory.rejects} lists each with what was found"
    )


def _ask(
    requests: list[Request],
    by: NamedWriter,
    journal: Journal,
    budget: Budget,
    *,
    signals: AbstractContextManager[StopSignals],
    options: RunOptions,
) -> None:
    for request in requests:
        if request.key in journal.replies:
            budget.add(journal.replies[request.key])
    there = sum(request.key in journal.replies for request in requests)
    if there:
        console_of(options).print(f"{there:,} of {len(requests):,} replies are there already", markup=False)
    with signals as noted, Counter("replies", len(requests), options) as counter:

        def between(num_replies: int) -> None:
            counter.show(num_replies, f"cost {budget.cost:.4f}" if budget.cost else "")
            noted.check()

        try:
            whole = ask_all(requests, by.writer, journal, budget, concurrency=by.concurrency, between=between)
        except StopAsked:
            assert noted.received is not None
            raise Stopped(
                noted.received,
                f"stopped with {len(journal.replies):,} of {len(requests):,} replies kept; go on with --resume",
            ) from None
    if not whole:
        raise GuardError(
            f"stopped before more than {budget.most:g} would be spent: {len(journal.replies):,} of {len(requests):,} "
            f"replies are there for {budget.cost:.4f} and what passed the checks is written; go on with --resume and a "
            "higher --max-cost"
        )


def _facts(facts: str, about: FactOptions, seed: int) -> Iterable[Facts]:
    if about.instances is not None and Path(facts).suffix != ".json":
        raise UsageError(
            f"COCO's instances go with its captions file (.json), but FACTS is '{facts}'; leave them out"
        )
    if facts == SCENES:
        return scene_facts(_world(about, seed), about.limit or _NUM_SCENES)
    file = Path(facts)
    match file.suffix:
        case ".jsonl":
            found = list(read_facts(file))
        case ".json":
            found = list(read_coco(file, about.instances))
        case _:
            raise UsageError(
                f"FACTS is '{facts}'; expected scenes, a .jsonl file with image, captions and boxes, or COCO's "
                "captions file (.json)"
            )
    return found[: about.limit]


def _world(about: FactOptions, seed: int) -> Scenes:
    return Scenes(split=about.split, seed=seed)


def _named(facts: str, about: FactOptions, seed: int) -> str:
    """What the facts are, so that a journal of others is refused; more pictures of the same are welcome."""
    if facts == SCENES:
        return f"scenes of split {about.split}, seed {seed}"
    digest = hashlib.sha256(file_hash(Path(facts)).encode())
    if about.instances is not None:
        digest.update(file_hash(about.instances).encode())
    return f"{Path(facts).name} {digest.hexdigest()[:16]}"


def _draw(told: list[Facts], rows: Rows, folder: Path, world: Scenes) -> None:
    """Draw the scenes that rows are about, so that the file can be trained on as it is."""
    wanted = {row["image"] for row in rows.kept}
    for facts in told:
        file = folder / facts.image
        if facts.scene is not None and facts.image in wanted and not file.exists():
            folder.mkdir(exist_ok=True)
            with replacing(file) as unfinished:
                world.picture(facts.scene).save(unfinished, "PNG")


def _result(
    directory: InstructDirectory, rows: Rows, budget: Budget, wanted: int, seconds: float
) -> dict[str, Any]:
    unusable = rows.reasons.get("unusable facts", 0)
    return {
        "written": len(rows.kept) + len(rows.rejects) - unusable,
        "kept": len(rows.kept),
        "dropped": len(rows.rejects),
        "wanted": wanted,
        "kinds": dict(rows.kinds),
        "reasons": rows.reasons,
        "tokens": {"in": budget.tokens_in, "out": budget.tokens_out},
        "cost": budget.cost,
        "seconds": seconds,
        "file": str(directory.conversations),
        "rejects": str(directory.rejects),
    }
