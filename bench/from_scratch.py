"""Contrastive training from scratch on photos at 64 pixels: CLIP, SigLIP, FLIP, and MAE's weights against random ones.

    python bench/from_scratch.py             # trains what is not trained yet, then writes docs/results/from_scratch.md

Every arm is a shipped recipe, three seeds each. A run that is finished is not made again, one that was stopped goes on.
Text and image sides are the same but where the method differs; MAE is compared with the same encoder from random
weights and the same second stage.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import Page
from retrieval_page import DIRECTIONS, Judged, as_json, cells, differences, judge_run, points, row_of, spreads

from isthmus.config.load import load_recipe, recipe_hash
from isthmus.core.errors import IsthmusError
from isthmus.core.options import RunOptions
from isthmus.core.randomness import seed_of
from isthmus.data.samples import Source
from isthmus.evaluation.controls import shuffled
from isthmus.evaluation.retrieval import RECALLS, Retrieval
from isthmus.run.directory import RunDirectory
from isthmus.run.floor import Side, rank_by_ridge, small_pixels
from isthmus.run.load import load
from isthmus.run.train import train

ARMS = {
    "clip": "CLIP",
    "siglip": "SigLIP (sigmoid loss)",
    "flip_50": "FLIP, 50% of patches",
    "flip_75": "FLIP, 25% of patches",
    "mae_retrieval": "MAE, then contrast",
    "random_retrieval": "the same encoder from random weights",
}
COMPARED = (
    ("flip_50", "clip"),
    ("flip_75", "clip"),
    ("siglip", "clip"),
    ("mae_retrieval", "random_retrieval"),
)
"""Which arm is held against which."""

CLIP_FACTOR = {"must": 1.3, "goal": 2.0}
"""CLIP's recall at 10, text to image, as a multiple of the ridge's on pixels."""


def main() -> int:
    """Train, judge, write; the exit code is of the documented kind."""
    parser = argparse.ArgumentParser(
        description="Train from scratch on Flickr8k; writes docs/results/from_scratch.md."
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/from_scratch"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--only", nargs="+", choices=ARMS, default=None, help="some arms; the page is only printed"
    )
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(given.threads)
    arms = [arm for arm in ARMS if given.only is None or arm in given.only]
    try:
        for seed in given.seeds:  # a seed of every arm first, so that an early stop leaves a whole comparison
            for arm in arms:
                _trained(arm, seed, given.runs)
        judged = {
            arm: [
                judge_run(load(given.runs / f"{arm}-{seed}", RunOptions()), given.split)
                for seed in given.seeds
            ]
            for arm in arms
        }
        floors = _floors(load(given.runs / f"{arms[0]}-{given.seeds[0]}").workshop.source, given.split)
    except IsthmusError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = _page(judged, floors, given)
    if given.only is None and given.split == "test":
        page.write("from_scratch", _data(judged, floors))
    else:
        print(page.text())
    return 0


def _trained(arm: str, seed: int, runs: Path) -> None:
    recipe, directory = load_recipe(f"flickr8k/{arm}", [f"seed={seed}"]), RunDirectory(runs / f"{arm}-{seed}")
    if directory.final.is_dir() and directory.recipe_hash == recipe_hash(recipe):
        return
    logging.info("%s, seed %d", arm, seed)
    train(recipe, out=directory.path, resume=directory.recipe_file.is_file(), options=RunOptions())


def _floors(source_of: Any, split: str) -> dict[str, Retrieval]:
    """Ridge on 16 x 16 pixels, as it is and fitted on photos with another photo's captions."""
    known, asked = (_side(source_of(name)) for name in ("train", split))
    others = shuffled(range(len(known.captions)), seed_of(0, "shuffled pairs") % 2**32)
    exchanged = Side(known.vectors, [known.captions[other] for other in others])
    return {"pixels": rank_by_ridge(known, asked), "shuffled": rank_by_ridge(exchanged, asked)}


def _side(source: Source) -> Side:
    return Side(small_pixels(source), [list(source.sample(row).captions) for row in range(len(source))])


def _page(
    judged: Mapping[str, Sequence[Judged]], floors: Mapping[str, Retrieval], given: argparse.Namespace
) -> Page:
    command = " ".join(["python bench/from_scratch.py", *sys.argv[1:]])
    page = Page(f"From scratch on Flickr8k at 64 pixels ({given.split})", command)
    page.say(
        "Recall in %, ties count as misses; ± is the sample standard deviation over seeds. A recipe an arm,",
        "`flickr8k/ARM`; nothing is pretrained but MAE's encoder, on the same photos.",
    )
    columns = ["arm", *[f"{text} R@{k}" for text in DIRECTIONS.values() for k in RECALLS], "training, s"]
    rows = [
        [ARMS[arm], *spreads(runs), " / ".join(f"{one.seconds:.0f}" for one in runs)]
        for arm, runs in judged.items()
    ]
    rows += [[*row_of("ridge on 16 x 16 pixels", cells(floors["pixels"])), "-"]]
    rows += [[*row_of("the same, pairs shuffled in training", cells(floors["shuffled"])), "-"]]
    rows += [
        [*row_of(f"{ARMS[arm]}, photos shuffled (seed {runs[0].seed})", cells(runs[0].shuffled)), "-"]
        for arm, runs in judged.items()
    ]
    page.table(columns, rows)
    page.head("Differences of means over seeds, paired by query, with 95% intervals (percentage points)")
    page.say(
        "Intervals resample photos, not seeds; how far apart the seeds of an arm lie stands in the table above.",
        "Seconds are those of whole stages with validation; steps were set so that arms take equal time.",
    )
    pairs = [(one, other) for one, other in COMPARED if one in judged and other in judged]
    page.table(
        columns[:-1],
        [
            [f"{ARMS[one]} − {ARMS[other]}", *map(points, differences(judged[one], judged[other]))]
            for one, other in pairs
        ],
    )
    if "clip" in judged:
        reached = np.mean([cells(one.real)[2] for one in judged["clip"]]) / cells(floors["pixels"])[2]
        page.say(
            f"CLIP's R@10 from text to image is {reached:.2f} times that of the ridge on pixels",
            f"(at least {CLIP_FACTOR['must']} was asked, {CLIP_FACTOR['goal']} hoped for).",
        )
    return page


def _data(judged: Mapping[str, Sequence[Judged]], floors: Mapping[str, Retrieval]) -> dict[str, Any]:
    return {
        "arms": {
            arm: [
                {
                    "seed": one.seed,
                    "recipe_sha256": one.recipe_hash,
                    "training_seconds": one.seconds,
                    "metrics": as_json(one.real),
                    "shuffled": as_json(one.shuffled),
                }
                for one in runs
            ]
            for arm, runs in judged.items()
        },
        "floors": {name: as_json(one) for name, one in floors.items()},
        "differences": {
            f"{one} minus {other}": [found.to_json() for found in differences(judged[one], judged[other])]
            for one, other in COMPARED
            if one in judged and other in judged
        },
    }


if __name__ == "__main__":
    sys.exit(main())
