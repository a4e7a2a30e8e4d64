"""CapFilt's decisions against a brute-force twin, and its folder: blocks, shares, stops and what is refused."""

import itertools
import json
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.errors import CheckpointError, GuardError
from isthmus.curation.capfilt.blocks import Plan, decide_block
from isthmus.curation.capfilt.decisions import Candidate, Rule, decide
from isthmus.curation.capfilt.folder import CapfiltFolder, Share
from isthmus.data.exchanged import ExchangedCaptions
from isthmus.data.pictures import BadSample
from isthmus.data.samples import ImageRef, MemorySource, MissingImage, Sample
from isthmus.data.sources.scenes import SceneSource
from isthmus.data.sources.shards import Shards

SCENES = SceneSource(split="val", num_samples=11, image_size=32)
PLAN = Plan(captions=2, rule=Rule(threshold=0.5), seed=7, block_size=3)
SETTINGS = {"seed": 7, "threshold": 0.5}
CAPTIONS = st.sampled_from(["a dog", "A dog.", "", "  ", "two cats", "a  DOG", "red"])
SCORES = st.sampled_from([0.1, 0.4, 0.5, 0.7, 0.9])


def written(samples: Sequence[Sample], seed: int) -> list[str]:
    """A captioner whose words depend on picture and draw alone."""
    return [f"{sample.id} drawn {seed % 1000}" for sample in samples]


def scored(pairs: Sequence[tuple[ImageRef, str]]) -> list[float]:
    """A filter that likes every other length."""
    return [0.9 if len(caption) % 2 else 0.1 for _, caption in pairs]


def work(folder: CapfiltFolder, blocks: Sequence[int]) -> None:
    for block in blocks:
        folder.keep(block, decide_block(SCENES, block, PLAN, write=written, score=scored))


def opened(path: Path, *, resume: bool = False, share: Share | None = None) -> CapfiltFolder:
    folder = CapfiltFolder(path, PLAN.num_blocks(len(SCENES)))
    folder.open(SETTINGS, share=share or Share(), resume=resume)
    return folder


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in [*path.glob("pairs-*.tar"), path / "decisions.jsonl"]}


def brute_force(captions: Sequence[str], scores: Sequence[float], rule: Rule) -> set[int]:
    """The same by looking at every set of places: the largest that may stay, and of those the one with the best scores."""

    words = [re.findall("[a-z]+", caption.lower()) for caption in captions]
    allowed = [
        index
        for index in range(len(captions))
        if words[index]
        and words[index] not in words[:index]
        and (rule.threshold is None or scores[index] >= rule.threshold)
    ]
    size = min(len(allowed), len(allowed) if rule.best is None else rule.best)
    chosen = max(
        itertools.combinations(allowed, size),
        key=lambda places: (sorted((scores[place] for place in places), reverse=True), [-p for p in places]),
    )
    return set(chosen)


@given(
    st.lists(st.tuples(CAPTIONS, SCORES), max_size=6),
    st.sampled_from([None, 0.0, 0.5, 2.0]),
    st.sampled_from([None, 1, 2]),
)
def test_decisions_equal_those_of_a_search_through_all_choices(
    found: list[tuple[str, float]], threshold: float | None, best: int | None
) -> None:
    rule = Rule(threshold=threshold, best=best)
    candidates = [
        Candidate(caption=caption, origin="web", score=score if caption.strip() else None)
        for caption, score in found
    ]
    kept = {index for index, one in enumerate(decide(candidates, rule)) if one.kept}
    assert kept == brute_force([caption for caption, _ in found], [score for _, score in found], rule)


def test_every_caption_has_a_line_and_kept_ones_a_place_in_the_pairs(tmp_path: Path) -> None:
    folder = opened(tmp_path / "out")
    work(folder, range(folder.num_blocks))
    folder.merge()
    lines = [json.loads(line) for line in folder.decisions.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == sum(len(SCENES[row].captions) + 2 for row in range(11))
    kept: dict[str, list[str]] = {}
    for line in lines:
        assert line["kept"] == (not line["reason"])
        if line["kept"]:
            kept.setdefault(f"{line['row']:08d}", []).append(line["caption"])
    pairs = Shards(folder.pairs)
    assert {sample.id: list(sample.captions) for sample in pairs} == kept
    for sample in pairs:
        there = SCENES[int(sample.id)].images[0]
        assert sample.images[0].picture().tobytes() == there.picture().tobytes()
    counts = folder.counts()
    assert (counts["written"], counts["kept"]) == (len(lines), sum(map(len, kept.values())))
    assert counts["by_origin"]["synthetic"]["written"] == 22


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(stop: int, tmp_path: Path) -> None:
    whole, out = opened(tmp_path / "whole"), opened(tmp_path / "out")
    work(whole, range(4))
    whole.merge()
    work(out, range(stop))
    # A crash between a block's two files: its pairs are there, its decisions are not.
    (out.path / f"pairs-{stop:06d}.tar").write_bytes(b"cut short")
    again = opened(tmp_path / "out", resume=True)
    work(again, [block for block in range(4) if not again.is_done(block)])
    again.merge()
    assert content(again.path) == content(whole.path)


def test_shares_cover_each_block_once_and_make_what_one_process_makes(tmp_path: Path) -> None:
    for num, num_blocks in itertools.product(range(1, 6), range(9)):
        blocks = [block for number in range(1, num + 1) for block in Share(number, num).blocks(num_blocks)]
        assert sorted(blocks) == list(range(num_blocks))
    one, two = opened(tmp_path / "one"), [opened(tmp_path / "two", share=Share(n, 2)) for n in (1, 2)]
    work(one, range(4))
    one.merge()
    work(two[1], Share(2, 2).blocks(4))
    assert not two[1].is_whole
    work(two[0], Share(1, 2).blocks(4))
    assert two[0].is_whole
    two[0].merge()
    assert content(two[0].path) == content(one.path)


def test_pictures_that_cannot_be_used_are_named_and_scored_by_nobody(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Damaged(MissingImage):
        """Its record is there, its picture is not."""

    broken = Damaged("x.jpg is damaged", name="x.jpg")
    source = MemorySource(
        [
            Sample(id="broken", origin="row 1", images=(broken,), captions=("a dog",)),
            Sample(id="none", origin="row 2", captions=("a dog",)),
            Sample(id="bare", origin="row 3", images=SCENES[0].images),
        ]
    )
    decided = decide_block(source, 0, PLAN, write=written, score=scored)
    assert [one.problem for one in decided] == ["x.jpg is damaged", "row 2 has no picture", ""]
    assert [one.candidate.origin for one in decided[2].decisions] == ["synthetic", "synthetic"]
    folder = CapfiltFolder(tmp_path / "out", 1)
    folder.open(SETTINGS, share=Share(), resume=False)
    folder.keep(0, decided)
    assert folder.counts()["unusable_pictures"] == 2
    with pytest.raises(BadSample):
        broken.read()


def test_scores_that_are_no_numbers_stop_it() -> None:
    def broken(pairs: Sequence[tuple[ImageRef, str]]) -> list[float]:
        return [float("nan")] * len(pairs)

    with pytest.raises(GuardError, match="expected a finite number"):
        decide_block(SCENES, 0, PLAN, write=None, score=broken)


@pytest.mark.parametrize(
    ("prepare", "resume", "says"),
    [
        (lambda path: path.write_text(""), False, "is a file"),
        (lambda path: (path.mkdir(), (path / "mine").touch()), False, "holds mine and no settings.json"),
        (lambda path: (path.mkdir(), (path / "mine").touch()), True, "holds mine and no settings.json"),
        (lambda path: work(opened(path), [0]), False, "go on with --resume"),
        (lambda path: (path.mkdir(), (path / "settings.json").write_text("{")), True, "is damaged"),
        (
            lambda path: (path.mkdir(), (path / "settings.json").write_text('{"seed": 8, "threshold": 0.5}')),
            True,
            "made with seed = 8, and now it is 7",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(
    prepare: Callable[[Path], object], resume: bool, says: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "out")
    with pytest.raises(CheckpointError, match=says):
        opened(tmp_path / "out", resume=resume)


def test_pairs_hold_no_trace_of_the_machine(tmp_path: Path) -> None:
    folder = opened(tmp_path / "out")
    work(folder, range(4))
    for path in folder.path.glob("pairs-*.tar"):
        with tarfile.open(path) as archive:
            assert {(m.mtime, m.uid, m.uname, m.mode) for m in archive.getmembers()} == {(0, 0, "", 0o644)}


@pytest.mark.parametrize("share", [0.25, 0.4, 1.0])
def test_exactly_a_share_of_the_captions_is_exchanged_and_none_is_lost(share: float) -> None:
    samples = [
        Sample(id=str(index), origin=str(index), captions=tuple(f"{index} {at}" for at in range(5)))
        for index in range(40)
    ]
    source = ExchangedCaptions(MemorySource(samples), share=share, seed=1)
    moved = 0
    for index, sample in enumerate(source):
        for at, caption in enumerate(sample.captions):
            is_own = caption == f"{index} {at}"
            assert is_own != source.is_exchanged(index, at)
            assert is_own or caption.split()[0] != str(index)
            moved += not is_own
    assert moved == round(share * 200)
    assert sorted(c for s in source for c in s.captions) == sorted(c for s in samples for c in s.captions)
    other = ExchangedCaptions(MemorySource(samples), share=share, seed=2)
    assert share == 1.0 or [s.captions for s in other] != [s.captions for s in source]
