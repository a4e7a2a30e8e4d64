"""Does CapFilt clean captions, and do cleaner captions teach more? Real photos with a known share of wrong captions.

A captioner and a filter start on 5,000 photos of Flickr8k with 40% of their captions exchanged and learn on from 1,000
clean photos; nothing that is trained knows which captions are wrong. What the filter drops is held against that truth.
Then new models learn from the same photos with noisy, filtered, filtered and synthetic, and clean captions, with equal
steps and rows a step. What is finished is not made again.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from capfilt_page import make_page
from jaxtyping import Float

from isthmus.build.sources import build_source
from isthmus.config.load import load_recipe, recipe_hash
from isthmus.config.recipe import Recipe
from isthmus.core.errors import IsthmusError
from isthmus.core.options import RunOptions
from isthmus.data.exchanged import ExchangedCaptions
from isthmus.evaluation.statistics import proportion
from isthmus.run.directory import RunDirectory, read_json, replace_json
from isthmus.run.evaluate import evaluate
from isthmus.run.train import train

ARMS = ("noisy", "filtered", "filtered + synthetic", "clean")
"""What the captions of the 5,000 photos are that a new model learns from."""
FILTERED = {"filtered": "filtered", "filtered + synthetic": "bootstrapped"}
"""The stage that makes an arm's captions."""


def main() -> int:
    """Train what is not trained yet, judge it, write the page."""
    given = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(given.threads)
    try:
        found = [_seed(seed, given) for seed in given.seeds]
    except IsthmusError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = make_page(found, ARMS, given)
    if given.print:
        print(page.text())
    else:
        page.write("capfilt", {"seeds": dict(zip(map(str, given.seeds), found, strict=True))})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure CapFilt on photos: docs/results/capfilt.md.")
    parser.add_argument("--runs", type=Path, default=Path("runs/capfilt"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--exchanged", type=float, default=0.4, help="share of the captions that are wrong")
    parser.add_argument("--steps", type=int, default=600, help="of what captioner and filter start from")
    parser.add_argument("--student-steps", type=int, default=400, help="of each new model")
    parser.add_argument(
        "--tuned", type=int, default=160, help="steps of captioner and filter on clean photos"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="least probability of matching")
    parser.add_argument(
        "--shards", default="[1-5]", help="which training shards are filtered; fewer for a try"
    )
    parser.add_argument("--limit", type=int, default=None, help="most test photos; all by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    return parser.parse_args()


def _seed(seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one seed: what the filters decided, and what each arm's model can do."""
    recipe = _bootstrap(seed, given)
    # Its name says what it was made with: of the captions that a student learns from its recipe knows the path alone.
    run = RunDirectory(given.runs / f"bootstrap-{seed}-{recipe_hash(recipe)[:8]}")
    _train(recipe, run, f"bootstrap, seed {seed}")
    truth = build_source(recipe.data["noisy"], recipe.data)
    assert isinstance(truth, ExchangedCaptions)
    made = {arm: _decided(run.stage(stage) / "decisions.jsonl", truth) for arm, stage in FILTERED.items()}
    stages = {stage["name"]: stage for stage in run.read_results()["stages"]}
    return {
        "filter": made["filtered"],
        "counts": {arm: stages[stage]["by_origin"] for arm, stage in FILTERED.items()},
        "seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "arms": {arm: _student(arm, seed, run, given) for arm in ARMS},
    }


def _bootstrap(seed: int, given: argparse.Namespace) -> Recipe:
    changes = [f"seed={seed}", f"data.noisy.seed={seed}", f"data.noisy.exchanged={given.exchanged}"]
    changes += [f"data.noisy.files={_photos(given)}", f"stages.pretrain.steps={given.steps}"]
    changes += [f"stages.{stage}.steps={given.tuned}" for stage in ("captioner", "filter")]
    changes += [f"stages.{stage}.threshold={given.threshold}" for stage in FILTERED.values()]
    return load_recipe("flickr8k/capfilt", changes)


def _photos(given: argparse.Namespace) -> str:
    return f"${{shared}}/data/flickr8k/train-00000{given.shards}.tar"


def _student(arm: str, seed: int, bootstrap: RunDirectory, given: argparse.Namespace) -> dict[str, Any]:
    """A new model of one arm, trained and judged, or what an earlier call found."""
    changes = [f"seed={seed}", f"stages.pretrain.steps={given.student_steps}"]
    if arm in FILTERED:
        pairs = bootstrap.stage(FILTERED[arm]).resolve() / "pairs-*.tar"
        changes.append(f"data.train.files={pairs}")
    else:
        changes.append(f"data.train.files={_photos(given)}")
    if arm == "noisy":
        changes += [f"data.train.exchanged={given.exchanged}", f"data.train.seed={seed}"]
    recipe = load_recipe("flickr8k/capfilt_student", changes)
    run = RunDirectory(given.runs / f"{arm.replace(' + ', '-')}-{seed}")
    _train(recipe, run, f"{arm}, seed {seed}")
    kept = run.path / "judged.json"
    found = read_json(kept)
    if found.get("limit", "") != given.limit or found.get("recipe") != recipe_hash(recipe):
        options = RunOptions()
        ranked = evaluate(run.path, limit=given.limit, options=options)
        told = evaluate(run.path, limit=given.limit, changes=["evaluation.task=captioning"], options=options)
        found = {
            "limit": given.limit,
            "recipe": recipe_hash(recipe),
            "retrieval": ranked["metrics"],
            "captions": told["metrics"],
            "shuffled": told["controls"]["shuffled"],
            "seconds": run.read_results()["stages"][0]["seconds"],
        }
        replace_json(kept, found)
    return found


def _train(recipe: Recipe, run: RunDirectory, name: str) -> None:
    if run.recipe_hash == recipe_hash(recipe) and run.final.is_dir():
        return
    logging.info("%s", name)
    train(recipe, out=run.path, resume=run.recipe_file.is_file(), options=RunOptions())


def _decided(decisions: Path, truth: ExchangedCaptions) -> dict[str, Any]:
    """What the filter said of the captions that came with the photos, against which of them are exchanged."""
    wrong, dropped, scores, photos = [], [], [], []
    place: dict[int, int] = {}
    with decisions.open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            if line["from"] != "web" or line["caption"] is None:
                continue
            row = line["row"]
            caption = place[row] = place.get(row, -1) + 1
            wrong.append(truth.is_exchanged(row, caption))
            dropped.append(not line["kept"])
            scores.append(0.0 if line["score"] is None else line["score"])
            photos.append(row)
    is_wrong, is_dropped = np.array(wrong), np.array(dropped)

    def share(of: Float[np.ndarray, " caption"], among: Float[np.ndarray, " caption"]) -> dict[str, float]:
        chosen = [photo for photo, one in zip(photos, among, strict=True) if one]
        values = of[among].tolist()
        generator = np.random.default_rng(0)
        return proportion(values, generator=generator, clusters=chosen).to_json()

    return {
        "captions": len(wrong),
        "wrong": float(is_wrong.mean()),
        "dropped_precision": share(is_wrong, is_dropped),
        "dropped_recall": share(is_dropped, is_wrong),
        "kept_precision": share(~is_wrong, ~is_dropped),
        "kept_recall": share(~is_dropped, ~is_wrong),
        "right": share(is_wrong == is_dropped, np.ones(len(wrong), dtype=bool)),
        "ranking": ranked_apart(scores, wrong),
    }


def ranked_apart(scores: Sequence[float], wrong: Sequence[bool]) -> float:
    """How often a right caption scores above a wrong one (the area under the ROC curve); ties count half."""
    values, is_wrong = np.array(scores), np.array(wrong)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    num_right, num_wrong = int((~is_wrong).sum()), int(is_wrong.sum())
    return float((ranks[~is_wrong].sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


if __name__ == "__main__":
    sys.exit(main())
