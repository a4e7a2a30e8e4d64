"""Does instruction data help beyond captions? The two-stage tiny LLaVA, its second stage on one or the other.

The grammar writer makes LLaVA's three kinds about drawn scenes of training compositions. One arm learns from them in
the second stage, the other from captions of the same pictures, with equal steps, rows a step and learning rates. Both
are asked the same questions about compositions that training never showed. What is finished is not made again.
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
from results import Page, percent

from isthmus.config.instructions import FactOptions, PaceOptions, WriterOptions
from isthmus.config.load import load_recipe, recipe_hash
from isthmus.config.recipe import Recipe
from isthmus.core.errors import IsthmusError
from isthmus.core.options import RunOptions
from isthmus.evaluation.statistics import Difference, Estimate, paired_difference, proportion, spread
from isthmus.run.curate_instruct import instruct
from isthmus.run.directory import RunDirectory
from isthmus.run.evaluate import evaluate
from isthmus.run.train import train

RECIPE = "tiny/llava"
ARMS = {"three kinds": "conversations", "captions": "captions"}
"""What the second stage learns from, and how its rows are read."""

Answers = Mapping[str, Sequence[Sequence[dict[str, Any]]]]
"""For each arm and seed the judged answers, row by row."""


def main() -> int:
    """Write the data, train what is not trained yet, judge it, write the page."""
    given = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(given.threads)
    try:
        written = _data(given)
        answers = {arm: [_answers(arm, seed, given) for seed in given.seeds] for arm in ARMS}
    except IsthmusError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = _page(answers, written, given)
    if given.print:
        print(page.text())
    else:
        page.write(
            "instruct", _numbers(answers) | {"data": written, "steps": given.steps, "seeds": given.seeds}
        )
    return 0


def recipe_for(arm: str, seed: int, *, steps: Sequence[int], pictures: int, data: Path) -> Recipe:
    """The recipe of one run: arms differ in what the second stage reads, and in nothing else."""
    source = {
        "three kinds": f"{{kind: llava_json, file: {data}/conversations.json, images: {data}/images}}",
        "captions": f"{{kind: scenes, split: train, num_samples: {pictures}}}",
    }[arm]
    changes = [f"name=instruct-{arm.replace(' ', '-')}", f"seed={seed}", f"data.told={source}"]
    for stage, count in zip(("align", "instruct"), steps, strict=True):
        changes += [f"stages.{stage}.steps={count}", f"stages.{stage}.validation=null"]
        changes += [f"stages.{stage}.checkpoint_every={count}"]
    changes += ["stages.instruct.data=told", f"stages.instruct.rows={ARMS[arm]}"]
    return load_recipe(RECIPE, changes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare instruction data with captions: docs/results/instruct.md."
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/instruct"), help="where data and runs are kept"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(150, 700), help="of the two stages, 32 rows each"
    )
    parser.add_argument("--pictures", type=int, default=7500, help="pictures that are written about")
    parser.add_argument("--limit", type=int, default=None, help="most test questions; all by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    return parser.parse_args()


def _data(given: argparse.Namespace) -> dict[str, Any]:
    """Write the three kinds about the first pictures of the training split; a second call finds them there."""
    return instruct(
        "scenes",
        out=given.runs / "data",
        resume=(given.runs / "data" / "journal.jsonl").is_file(),
        about=FactOptions(limit=given.pictures),
        by=WriterOptions(),
        pace=PaceOptions(),
        options=RunOptions(seed=0),
    )


def _answers(arm: str, seed: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and judge, or read what an earlier call found."""
    data = (given.runs / "data").resolve()
    recipe = recipe_for(arm, seed, steps=given.steps, pictures=given.pictures, data=data)
    directory = RunDirectory(given.runs / f"{arm.replace(' ', '-')}-{seed}")
    found = directory.read_results().get("evaluation", {}).get("test")
    if directory.recipe_hash != recipe_hash(recipe) or found is None or not _is_whole(found, given.limit):
        logging.info("%s, seed %d", arm, seed)
        options = RunOptions()
        train(recipe, out=directory.path, resume=directory.recipe_file.is_file(), options=options)
        evaluate(directory.path, split="test", limit=given.limit, options=options)
    return directory.read_results()["examples"]


def _is_whole(found: dict[str, Any], limit: int | None) -> bool:
    return found["n"] == (limit or 1000)


def _page(answers: Answers, written: dict[str, Any], given: argparse.Namespace) -> Page:
    num_questions = len(answers["captions"][0])
    page = Page(
        f"Instruction data against captions alone ({num_questions:,} test questions, {len(given.seeds)} seeds)",
        "python bench/instruct.py",
    )
    kinds = ", ".join(f"{count:,} of {kind}" for kind, count in written["kinds"].items())
    page.say(
        f"`{RECIPE}`: {given.steps[0]} steps of 32 captions for the connector, then {given.steps[1]} steps of 32 rows",
        "for connector and language model. There `three kinds` reads what",
        f"`isthmus curate instruct scenes --limit {given.pictures} --out DIR` wrote ({kinds}),",
        "`captions` the captions of the same pictures. All else is equal.",
    )
    page.head("Right answers by kind of question, %")
    page.say(
        "Exact match on compositions that training never showed; 95% intervals resample questions, not seeds."
    )
    rows = []
    for kind in ["all", *_kinds(answers)]:
        shares = [_share(answers[arm], kind) for arm in ARMS]
        apart = _apart(answers, kind)
        cells = [f"{percent(one.value)} [{percent(one.low)}, {percent(one.high)}]" for one in shares]
        cells.append(f"{percent(apart.value)} [{percent(apart.low)}, {percent(apart.high)}]")
        rows.append([kind, *cells, f"{shares[0].n // len(given.seeds):,}"])
    page.table(["kind", *ARMS, "difference", "questions"], rows)
    page.head("Each seed, all questions, %")
    page.table(
        ["arm", *[f"seed {seed}" for seed in given.seeds], "mean ± deviation"],
        [_seeds_row(arm, answers[arm]) for arm in ARMS],
    )
    return page


def _seeds_row(arm: str, seeds: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    shares = [float(np.mean(_right(rows, "all"))) for rows in seeds]
    found = spread(shares)
    return [arm, *map(percent, shares), f"{percent(found.mean)} ± {percent(found.deviation)}"]


def _numbers(answers: Answers) -> dict[str, Any]:
    kinds = ["all", *_kinds(answers)]
    return {
        "arms": {arm: {kind: _share(answers[arm], kind).to_json() for kind in kinds} for arm in ARMS},
        "difference": {kind: _apart(answers, kind).to_json() for kind in kinds},
    }


def _kinds(answers: Answers) -> list[str]:
    return sorted({row["kind"] for row in answers["captions"][0]})


def _right(rows: Sequence[dict[str, Any]], kind: str) -> list[bool]:
    return [row["right"] for row in rows if kind in ("all", row["kind"])]


def _pooled(seeds: Sequence[Sequence[dict[str, Any]]], kind: str) -> tuple[list[bool], list[int]]:
    """Right or wrong of all seeds, and the number of each question: a question's answers belong together."""
    right = [_right(rows, kind) for rows in seeds]
    return [one for rows in right for one in rows], [number for rows in right for number in range(len(rows))]


def _share(seeds: Sequence[Sequence[dict[str, Any]]], kind: str) -> Estimate:
    right, numbers = _pooled(seeds, kind)
    return proportion(right, generator=np.random.default_rng(0), clusters=numbers)


def _apart(answers: Answers, kind: str) -> Difference:
    (first, numbers), (second, _) = (_pooled(answers[arm], kind) for arm in ARMS)
    return paired_difference(first, second, generator=np.random.default_rng(0), clusters=numbers)


if __name__ == "__main__":
    sys.exit(main())
