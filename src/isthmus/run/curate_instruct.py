"""`isthmus curate instruct`: instruction data from captions and boxes, by a writer of one's choice."""

import os
from pathlib import Path
from typing import Any

from isthmus.config.instructions import FactOptions, PaceOptions, WriterOptions
from isthmus.core.options import RunOptions
from isthmus.curation.instructions.endpoint import EndpointSettings, EndpointWriter, require_leave
from isthmus.curation.instructions.grammar import GrammarWriter
from isthmus.curation.instructions.pace import RateLimiter
from isthmus.run.curation_writers import drawn_by, local_name, local_writer
from isthmus.run.instructions import InstructDirectory, NamedWriter, write_instructions
from isthmus.training.signals import StopSignals


def instruct(
    facts: str,
    *,
    out: Path,
    resume: bool,
    about: FactOptions,
    by: WriterOptions,
    pace: PaceOptions,
    options: RunOptions,
) -> dict[str, Any]:
    """Write instruction data (design, section 7).

    Args:
        facts: `scenes`, a JSONL file of ours, or COCO's captions file.
        out: The output folder.
        resume: Go on with what it holds.
        about: Which pictures and kinds.
        by: Who writes.
        pace: How fast and for how much money.
        options: Seed, device and network.

    Raises:
        UsageError: Options do not fit each other, or the endpoint refuses everything.
        DataError: The facts are damaged, or no reply could be kept.
        CheckpointError: The folder holds something else.
        GuardError: The money ran out; what is written stays.
        MachineError: The network is not allowed, or the endpoint does not answer.
        Stopped: A signal came; what is written stays.
    """
    directory = InstructDirectory(out)
    if by.endpoint is not None:
        require_leave(by.endpoint, network_allowed=options.allow_network)
    directory.open(resume=resume)
    return write_instructions(
        facts,
        directory=directory,
        about=about,
        open_writer=lambda: _writer(by, pace, options),
        pace=pace,
        signals=StopSignals(),
        options=options,
    )


def _writer(by: WriterOptions, pace: PaceOptions, options: RunOptions) -> NamedWriter:
    """Who writes; the key is no part of the name."""
    if by.endpoint is not None:
        settings = EndpointSettings(
            url=by.endpoint,
            model=by.model or "",
            key=os.environ.get(by.key_variable),
            max_tokens=by.max_tokens,
            temperature=by.temperature,
            timeout_s=pace.timeout_s,
            retries=pace.retries,
        )
        return NamedWriter(
            writer=EndpointWriter(settings, RateLimiter(pace.requests_per_minute)),
            name=f"{by.model}, {drawn_by(by)}",
            concurrency=pace.concurrency,
        )
    if by.local is not None:
        return NamedWriter(writer=local_writer(by, options), name=local_name(by))
    return NamedWriter(writer=GrammarWriter(), name="grammar")
