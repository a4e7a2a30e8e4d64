"""The page of the best retrieval on Flickr8k: its runs against those of the plain recipe, paired, with controls."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from results import Page, named
from retrieval_page import (
    DIRECTIONS,
    Judged,
    as_json,
    cells,
    check_alike,
    differences,
    judge_run,
    points,
    row_of,
    spreads,
)

from isthmus.core.options import RunOptions
from isthmus.evaluation.retrieval import RECALLS
from isthmus.run.load import load


def make(runs: Sequence[Path], others: Sequence[Path], *, split: str) -> Path:
    """Judge runs of one recipe beside those of another on the same photos, and write the page.

    Raises:
        UsageError: Runs of one side differ in more than their seeds.
    """
    best, plain = (_judged(group, split) for group in (runs, others))
    command = f"python bench/flickr8k.py retrieval {_names(runs)} --against {_names(others)} --split {split}"
    page = Page(
        f"The best retrieval on Flickr8k ({split}, {len(best[0].real.image_to_text.ranks):,} photos)", command
    )
    found = differences(best, plain)
    columns = ["recall, %", *[f"{text} R@{k}" for text in DIRECTIONS.values() for k in RECALLS]]
    page.say(
        "Ties count as misses. Square brackets hold 95% bootstrap intervals, in which a photo is drawn with all its",
        "captions; ± is the sample standard deviation over seeds.",
    )
    page.table(
        columns,
        [
            *[row_of(f"best, seed {one.seed}", cells(one.real)) for one in best],
            [f"**best, mean over {len(best)} seed(s)**", *spreads(best)],
            [f"plain, mean over {len(plain)} seed(s)", *[cell.strip("*") for cell in spreads(plain)]],
            ["difference of means, points", *map(points, found)],
            *[row_of(f"best, seed {one.seed}, photos shuffled", cells(one.shuffled)) for one in best],
        ],
    )
    above = sum(one.low > 0 for one in found)
    page.say(f"{above} of {len(found)} intervals of the difference lie above zero.")
    page.table(
        ["run", "seed", "training, s", "recipe (SHA-256)"],
        [
            [one.name, str(one.seed), f"{one.seconds:.0f}", f"`{one.recipe_hash[:16]}`"]
            for one in [*best, *plain]
        ],
    )
    order = [f"{way}.recall_at_{k}" for way in DIRECTIONS for k in RECALLS]
    data = {
        "best": [as_json(one.real) for one in best],
        "plain": [as_json(one.real) for one in plain],
        "means": dict(zip(order, np.mean([cells(one.real) for one in best], axis=0).tolist(), strict=True)),
        "difference": {name: one.to_json() for name, one in zip(order, found, strict=True)},
        "split": split,
    }
    return page.write(
        "flickr8k-retrieval-best" if split == "test" else f"flickr8k-retrieval-best-{split}", data
    )


def _names(runs: Sequence[Path]) -> str:
    return " ".join(named(run) for run in runs)


def _judged(runs: Sequence[Path], split: str) -> list[Judged]:
    opened = [load(run, RunOptions()) for run in runs]
    check_alike(opened)
    return [judge_run(loaded, split) for loaded in opened]
