"""`isthmus curate capfilt`: write captions, let a filter judge them and those that are there, keep what belongs."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isthmus.build.sources import build_source
from isthmus.config.capfilt import CapFiltOptions
from isthmus.config.data import FolderSource, ShardSource
from isthmus.config.load import load_recipe
from isthmus.core.errors import DataError, Stopped, UsageError
from isthmus.core.options import RunOptions
from isthmus.core.randomness import seed_of
from isthmus.curation.capfilt.decisions import Decision, by_match, by_rank, candidates
from isthmus.data.pictures import BadSample
from isthmus.data.samples import Sample, Source
from isthmus.data.tally import Met, Tally
from isthmus.generation.decode import Decoding
from isthmus.run.capfilt_directory import CapFiltDirectory, assemble
from isthmus.run.load import LoadedRun, load
from isthmus.run.matching import likenesses, match_probabilities
from isthmus.run.progress import Counter
from isthmus.training.durability import file_hash, write_json
from isthmus.training.lock import DirectoryLock
from isthmus.training.signals import StopAsked, StopSignals

BLOCK = 64
"""Samples that are written about, judged and stored together; what is drawn depends on the block alone."""


def capfilt(data: str, *, out: Path, resume: bool, by: CapFiltOptions, options: RunOptions) -> dict[str, Any]:
    """Caption and filter (Li et al., 2022, section 3.3; design, section 7).

    Args:
        data: A pattern of tar shards, a folder, or `RECIPE:SOURCE`; it is only read.
        out: The output folder.
        resume: Go on with what it holds; also for every process but the first that writes to it.
        by: Who writes, who filters, what is kept.
        options: Seed, device.

    Raises:
        UsageError: There is no such data, or a run cannot do what is asked of it.
        DataError: More than 1% of the samples cannot be used, or nothing is kept.
        CheckpointError: The folder holds something else, or a run is not finished.
        Stopped: A signal came; what was judged stays.
    """
    started = time.monotonic()
    source = open_data(data, by.table)
    captioner, judge = load(by.captioner, options), load(by.filter, options)
    seed = options.seed or 0
    directory = CapFiltDirectory(out)
    process, num_processes = by.place
    crew = _Crew(source=source, captioner=captioner, judge=judge, by=by, seed=seed)
    crew.rehearse()
    settings = _settings(source, captioner, judge, by, seed)
    directory.begin(settings, resume=resume or num_processes > 1)
    num_blocks = math.ceil(len(source) / BLOCK)
    mine = range(process, num_blocks, num_processes)
    with DirectoryLock(directory.path / f"part-{process + 1}-of-{num_processes}"):
        _judge(crew, directory, mine, options)
    if not all(directory.block(number).is_file() for number in range(num_blocks)):
        return {"written": 0, "kept": 0, "dropped": 0, "complete": False, "out": str(out)}
    with DirectoryLock(directory.path):
        result = assemble(directory, source, num_blocks, by.rule, time.monotonic() - started)
    if not result["kept"]:
        raise DataError(
            f"none of {result['dropped']:,} captions was kept; {directory.decisions} lists each with its score; lower "
            "--threshold, or train the filter longer"
        )
    return result


def open_data(data: str, table: str | None) -> Source:
    """The samples that DATA means.

    Raises:
        UsageError: It is none of the three forms, or the recipe has no such source.
        DataError: There is nothing there.
    """
    if data.endswith(".tar") or any(sign in data for sign in "*{["):
        return build_source(ShardSource(files=data), {})
    if Path(data).is_dir():
        return build_source(FolderSource(path=data, table=table), {})
    recipe, _, name = data.rpartition(":")
    if not recipe:
        raise UsageError(f"DATA is '{data}'; expected tar shards, a folder that exists, or RECIPE:SOURCE")
    sources = load_recipe(recipe).data
    if name not in sources:
        raise UsageError(f"the recipe {recipe} has no source '{name}'; it has {', '.join(sources)}")
    return build_source(sources[name], sources)


@dataclass(frozen=True, kw_only=True)
class _Crew:
    """Who does what."""

    source: Source
    captioner: LoadedRun
    judge: LoadedRun
    by: CapFiltOptions
    seed: int

    def block(self, number: int, tally: Tally) -> list[dict[str, Any]]:
        """The decisions about each sample of a block."""
        indices, samples = [], []
        for index in range(number * BLOCK, min((number + 1) * BLOCK, len(self.source))):
            try:
                samples.append(self._sample(index))
                indices.append(index)
            except BadSample as error:
                tally.add(Met(rows=(), bad=((index, str(error)),)))
        decided = self._decided(samples, self._written(samples, number)) if samples else []
        return [
            {"index": index, "id": sample.id, "decisions": [one.to_json() for one in decisions]}
            for index, sample, decisions in zip(indices, samples, decided, strict=True)
        ]

    def rehearse(self) -> None:
        """Caption and judge one sample, before anything is written.

        Raises:
            UsageError: A run cannot do what is asked of it.
        """
        for index in range(len(self.source)):
            with contextlib.suppress(BadSample):
                samples = [self._sample(index)]
                self._decided(samples, self._written(samples, 0))
                return

    def _sample(self, index: int) -> Sample:
        sample = self.source.sample(index)
        if not sample.images:
            raise BadSample(f"{sample.origin} has no picture")
        sample.images[0].picture()
        return sample

    def _written(self, samples: list[Sample], number: int) -> list[list[str]]:
        drawing = replace(self.captioner.decoding, method="sample", beams=1, top_p=self.by.top_p)
        written: list[list[str]] = [[] for _ in samples]
        for turn in range(self.by.captions):
            seed = seed_of(self.seed, "capfilt", number, turn) % 2**32
            answers = self.captioner.write(
                _asking(samples), rows="captions", decoding=_drawn(drawing), seed=seed
            )
            for texts, answer in zip(written, answers, strict=True):
                texts.append(answer.text)
        return written

    def _decided(self, samples: list[Sample], written: list[list[str]]) -> list[list[Decision]]:
        sorted_out = [
            candidates(sample.captions, texts) for sample, texts in zip(samples, written, strict=True)
        ]
        pairs = [
            (sample.images[0], one.text)
            for sample, (asked, _) in zip(samples, sorted_out, strict=True)
            for one in asked
        ]
        scores = iter(
            match_probabilities(self.judge, pairs) if self.by.keep is None else likenesses(self.judge, pairs)
        )
        decided = []
        for asked, settled in sorted_out:
            own = [next(scores) for _ in asked]
            if self.by.keep is None:
                found = by_match(asked, own, least=self.by.threshold)
            else:
                found = by_rank(asked, own, most=self.by.keep)
            decided.append([*found, *settled])
        return decided


def _asking(samples: list[Sample]) -> list[Sample]:
    """The samples without what was said of them, which a captioner need not see."""
    return [replace(sample, captions=("",), turns=(), question=None, answers=()) for sample in samples]


def _drawn(decoding: Decoding) -> Decoding:
    """Nucleus sampling over beam search's settings."""
    return replace(decoding, length_penalty=1.0, temperature=1.0)


def _judge(crew: _Crew, directory: CapFiltDirectory, mine: Sequence[int], options: RunOptions) -> None:
    tally = Tally(num_samples=len(crew.source), format=crew.source.format)
    there = sum(directory.block(number).is_file() for number in mine)
    with StopSignals() as signals, Counter("blocks", len(mine), options) as counter:
        try:
            for number in mine:
                if directory.block(number).is_file():
                    continue
                rows = crew.block(number, tally)
                write_json(directory.block(number), {"rows": rows, "bad": list(tally.report().named)})
                there += 1
                counter.show(there, "")
                signals.check()
        except StopAsked:
            assert signals.received is not None
            raise Stopped(
                signals.received,
                f"stopped with {there:,} of {len(mine):,} blocks judged; go on with --resume",
            ) from None


def _settings(
    source: Source, captioner: LoadedRun, judge: LoadedRun, by: CapFiltOptions, seed: int
) -> dict[str, Any]:
    return {
        "data": f"{source.format}, {len(source)} samples, first {source.sample(0).id}",
        "captioner": _named(captioner),
        "filter": _named(judge),
        "captions": by.captions,
        "top_p": by.top_p,
        "rule": by.rule,
        "seed": seed,
    }


def _named(run: LoadedRun) -> str:
    files = sorted(run.directory.final.glob("*.safetensors"))
    return " ".join([run.directory.recipe_hash or "", *[file_hash(file) for file in files]])
