"""CapFilt on any source: a captioner writes, a filter scores, and what is kept becomes a new data set (BLIP, 3.3)."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from isthmus.config.capfilt import Filtering
from isthmus.core.errors import DataError, UsageError
from isthmus.core.files import write_json
from isthmus.core.options import RunOptions
from isthmus.curation.capfilt.blocks import Plan, Score, Write, decide_block
from isthmus.curation.capfilt.decisions import Rule
from isthmus.curation.capfilt.folder import CapfiltFolder, Share
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.pictures import BadSample
from isthmus.data.processor import VisionLanguageProcessor
from isthmus.data.samples import ImageRef, Sample, Source
from isthmus.generation.captions import WritesCaptions
from isthmus.generation.decode import Decoding
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.run.capfilt_report import write_capfilt_report
from isthmus.run.load import LoadedRun
from isthmus.run.matching import match_probabilities, similarities
from isthmus.run.progress import Counter
from isthmus.training.lock import DirectoryLock, InUse

_PICTURES_AT_ONCE = 64


@final
@dataclass(frozen=True, kw_only=True)
class Curation:
    """What writes and filters, and how.

    Attributes:
        captioner: Writes captions; None where none are written.
        judge: Scores captions.
        filtering: What is kept.
        seed: What drawn captions depend on.
    """

    captioner: LoadedRun | None
    judge: LoadedRun
    filtering: Filtering
    seed: int

    @property
    def plan(self) -> Plan:
        """The same for blocks."""
        chosen = self.filtering
        return Plan(
            captions=chosen.num_captions,
            rule=Rule(threshold=chosen.bound, best=chosen.num_best),
            seed=self.seed,
            block_size=chosen.block_size,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, beside models and source."""
        chosen = self.filtering
        return {
            "variant": chosen.variant,
            "captions": chosen.num_captions,
            "threshold": chosen.bound,
            "best": chosen.num_best,
            "top_p": chosen.top_p,
            "max_tokens": chosen.max_tokens,
            "block_size": chosen.block_size,
            "seed": self.seed,
        }

    def check(self) -> None:
        """Refuse models that cannot do what is asked of them, before anything is computed.

        Raises:
            UsageError: There is no captioner and captions are asked for, or a model lacks what its place needs.
        """
        self._score([])
        if self.captioner is None:
            if self.filtering.num_captions:
                raise UsageError(
                    f"captions is {self.filtering.num_captions}, but there is no captioner; name a run that writes "
                    "captions, or set captions to 0 to filter alone"
                )
            return
        model: object = self.captioner.workshop.model
        if not isinstance(model, WritesCaptions | VisionLanguageModel):
            kind = self.captioner.workshop.recipe.final_model.kind
            raise UsageError(
                f"{self.captioner.directory.path} holds a {kind}, which writes no captions; "
                "use a run of kind med, qformer_pretrainer or vision_language_model"
            )

    def run(
        self,
        source: Source,
        folder: CapfiltFolder,
        *,
        share: Share,
        check: Callable[[], None],
        options: RunOptions,
    ) -> None:
        """Work on the share's blocks that are not there yet.

        Args:
            source: What is filtered; it is only read.
            folder: Where blocks go.
            share: Which blocks.
            check: Called between batches; may raise to stop.
            options: How to report.

        Raises:
            CheckpointError: Another process works on this share.
            GuardError: The filter's scores are no numbers.
        """
        blocks = {block: self.plan.rows(block, len(source)) for block in share.blocks(folder.num_blocks)}
        num_pictures, done = sum(map(len, blocks.values())), 0
        with DirectoryLock(folder.lock(share)), Counter("pictures", num_pictures, options) as counter:
            for block, rows in blocks.items():
                done += len(rows)
                if folder.is_done(block):
                    continue
                check()
                self._choose_reading(source, rows)
                write = self._writer(check) if self.captioner is not None else None
                folder.keep(
                    block, decide_block(source, block, self.plan, write=write, score=self._scorer(check))
                )
                counter.show(done, "")

    def _choose_reading(self, source: Source, rows: range) -> None:
        """Read stored features where they hold every picture of a block; else encode all: a batch mixes no two."""
        images = [image for row in rows for image in _images(source, row)]
        for loaded in (self.captioner, self.judge):
            processor = loaded.workshop.processor if loaded is not None else None
            if loaded is None or not isinstance(processor, DualEncoderProcessor | VisionLanguageProcessor):
                continue
            store = loaded.workshop.store
            is_there = store is not None and all(image.digest() in store for image in images)
            processor.pictures.stored = store if is_there else None

    def _writer(self, check: Callable[[], None]) -> Write:
        assert self.captioner is not None
        captioner, chosen = self.captioner, self.filtering
        decoding = Decoding(method="sample", top_p=chosen.top_p, max_new_tokens=chosen.max_tokens)

        def write(samples: Sequence[Sample], seed: int) -> list[str]:
            texts: list[str] = []
            for first in range(0, len(samples), _PICTURES_AT_ONCE):
                check()
                asked = [replace(one, captions=("",)) for one in samples[first : first + _PICTURES_AT_ONCE]]
                answers = captioner.write(asked, rows="captions", decoding=decoding, seed=seed + first)
                texts += [answer.text for answer in answers]
            return texts

        return write

    def _scorer(self, check: Callable[[], None]) -> Score:
        def score(pairs: Sequence[tuple[ImageRef, str]]) -> list[float]:
            found: list[float] = []
            for first in range(0, len(pairs), _PICTURES_AT_ONCE):
                check()
                found += self._score(pairs[first : first + _PICTURES_AT_ONCE])
            return found

        return score

    def _score(self, pairs: Sequence[tuple[ImageRef, str]]) -> list[float]:
        if self.filtering.variant == "blip2":
            return similarities(self.judge, pairs)
        return match_probabilities(self.judge, pairs)


def _images(source: Source, row: int) -> tuple[ImageRef, ...]:
    """The picture of a row that can be read, or nothing."""
    try:
        image = source.sample(row).images[:1]
        for one in image:
            one.digest()
    except BadSample:
        return ()
    return image


def finish(
    folder: CapfiltFolder, source: Source, *, settings: dict[str, Any], name: str, started: float
) -> dict[str, Any]:
    """What came of it so far; where all blocks are done, also the merged table, the counts and the page.

    Args:
        folder: The output folder.
        source: What was filtered, for the pictures of the page.
        settings: What decided the result.
        name: What the page calls it.
        started: When this sitting began, by the monotonic clock.

    Raises:
        DataError: All blocks are done and nothing was kept.
    """
    counts = folder.counts()
    result = counts | {
        "whole": folder.is_whole,
        "seconds": time.monotonic() - started,
        "pairs": folder.pairs,
        "decisions": str(folder.decisions),
        "report": str(folder.report),
    }
    if not folder.is_whole:
        return result
    # Two processes may end at once; then the other one writes the same.
    with contextlib.suppress(InUse), DirectoryLock(folder.path / "locks" / "merge"):
        folder.merge()
        write_json(folder.summary, counts)
        write_capfilt_report(folder, source, counts, settings=settings, name=name)
    if not counts["kept"]:
        raise DataError(
            f"none of {counts['written']:,} captions was kept; {folder.decisions} lists each with its score: "
            "lower the threshold, or check that filter and data belong together"
        )
    return result
