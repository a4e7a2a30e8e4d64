"""`isthmus curate capfilt`: captions that trained models write and filter, from any source to a new data set."""

import os
import signal
import time
from pathlib import Path
from typing import Any, cast

from isthmus.config.capfilt import Filtering
from isthmus.config.curating import FilterOptions, ModelOptions
from isthmus.core.errors import DataError, Stopped, UsageError
from isthmus.core.files import file_hash
from isthmus.core.options import RunOptions
from isthmus.curation.capfilt.folder import CapfiltFolder, Share
from isthmus.data.samples import Source
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.shards import Shards
from isthmus.run.capfilt import Curation, finish
from isthmus.run.directory import RunDirectory
from isthmus.run.load import LoadedRun, load
from isthmus.training.signals import StopAsked, StopSignals


def capfilt(
    data: str,
    *,
    out: Path,
    resume: bool,
    by: ModelOptions,
    rule: FilterOptions,
    options: RunOptions,
) -> dict[str, Any]:
    """Write and filter captions (design, section 7).

    Args:
        data: Tar shards (a path or pattern), or a folder of pictures.
        out: The output folder.
        resume: Go on with what it holds.
        by: Who writes and filters, and which share of the work is this process's.
        rule: What is kept.
        options: Seed, device and network.

    Raises:
        UsageError: A model cannot do what is asked of it, or an option is missing.
        DataError: The data is damaged, or no caption could be kept.
        CheckpointError: The folder holds something else, or a run is not finished.
        Stopped: A signal came; blocks that are done stay.
    """
    started = time.monotonic()
    if by.filter is None:
        raise UsageError("--filter is missing; name a run whose model matches pictures with texts")
    if Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(f"--out {out} lies inside {data}, which is only read; choose a folder beside it")
    source = cast(Source, _source(data, by.table)[: by.limit])
    judge = load(by.filter, options, model=by.filter_model)
    captioner = _captioner(by, judge, options)
    curation = Curation(
        captioner=captioner, judge=judge, filtering=Filtering(**vars(rule)), seed=options.seed or 0
    )
    curation.check()
    settings = {
        "data": f"{data}, {len(source):,} samples",
        "captioner": _named(captioner),
        "filter": _named(judge),
        **curation.settings,
    }
    folder, share = CapfiltFolder(out, curation.plan.num_blocks(len(source))), _share(by)
    folder.open(settings, share=share, resume=resume)
    with StopSignals() as signals:
        try:
            curation.run(source, folder, share=share, check=signals.check, options=options)
        except StopAsked:
            assert signals.received is not None
            done = sum(folder.is_done(block) for block in range(folder.num_blocks))
            raise Stopped(
                signals.received,
                f"stopped by {signal.Signals(signals.received).name} with {done:,} of {folder.num_blocks:,} blocks "
                "done; go on with --resume",
            ) from None
    return finish(folder, source, settings=settings, name=f"capfilt of {Path(data).name}", started=started)


def _captioner(by: ModelOptions, judge: LoadedRun, options: RunOptions) -> LoadedRun | None:
    """The run that writes; one run that does both is opened once."""
    if by.captioner is None:
        return None
    if (by.captioner, by.captioner_model) == (by.filter, by.filter_model):
        return judge
    return load(by.captioner, options, model=by.captioner_model)


def _source(data: str, table: str | None) -> Source:
    path = Path(data)
    if path.is_dir():
        tables = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".csv", ".tsv", ".jsonl"))
        if table is None and len(tables) > 1:
            raise UsageError(f"{data} holds {', '.join(tables)}; say which one with --table")
        return Folder(path, table=table or (tables[0] if tables else None))
    if table is not None:
        raise UsageError(f"--table is '{table}', but {data} is no folder of pictures")
    if path.suffix == ".tar" or "*" in data or "{" in data:
        return Shards(data)
    raise DataError(f"{data} is neither a folder of pictures nor tar shards; check the path")


def _named(loaded: LoadedRun | None) -> str | None:
    """A run by its recipe and its weights, wherever it lies."""
    if loaded is None:
        return None
    directory: RunDirectory = loaded.directory
    weights = file_hash(directory.final / "model.safetensors")
    return f"{loaded.workshop.recipe.name} {directory.recipe_hash[:12]} {weights[:12]}"


def _share(by: ModelOptions) -> Share:
    """What `--shard` says, or else what torchrun says, or all."""
    if by.part is not None:
        return Share(*by.part)
    return Share(int(os.environ.get("RANK", "0")) + 1, int(os.environ.get("WORLD_SIZE", "1")))
