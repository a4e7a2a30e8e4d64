"""The page of retrieval on Flickr8k: runs against the ridge floor on the same encoder, paired, with controls."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from results import Page, interval, named, percent

from isthmus.core.errors import UsageError
from isthmus.core.options import RunOptions
from isthmus.core.randomness import seed_of
from isthmus.data.controls import picture_ids
from isthmus.evaluation.controls import shuffled
from isthmus.evaluation.retrieval import RECALLS, Ranking, Retrieval, compare_recall, rank_vectors
from isthmus.evaluation.ridge import ALPHA
from isthmus.evaluation.statistics import Difference, paired_difference, spread
from isthmus.run.floor import Floors, measure_floors
from isthmus.run.load import LoadedRun, load
from isthmus.run.retrieval import embed_pairs

GOALS = {"text_to_image": (0.16, 0.40, 0.53), "image_to_text": (0.21, 0.45, 0.59)}
DIRECTIONS = {"text_to_image": "text → image", "image_to_text": "image → text"}
_SEED = 0


@final
@dataclass(frozen=True)
class Judged:
    """One run on one split."""

    name: str
    seed: int
    recipe_hash: str
    seconds: float
    real: Retrieval
    shuffled: Retrieval


def make(runs: Sequence[Path], *, split: str) -> Path:
    """Judge runs of one recipe, differing in their seeds, and write the page.

    Raises:
        UsageError: The runs do not look at the same pictures through the same encoder.
    """
    opened = [load(run, RunOptions()) for run in runs]
    check_alike(opened)
    judged = [judge_run(loaded, split) for loaded in opened]
    first = opened[0]
    train, asked = (first.workshop.source(_source_name(first, which)) for which in ("train", split))
    floors = measure_floors(first, train, asked, seed=_SEED)
    above = _differences(judged, floors)
    page = Page(
        f"Retrieval on Flickr8k ({split}, {len(asked):,} photos)",
        f"python bench/flickr8k.py retrieval {' '.join(named(run) for run in runs)} --split {split}",
    )
    _write_page(page, judged, floors, above)
    return page.write(
        "flickr8k-retrieval" if split == "test" else f"flickr8k-retrieval-{split}",
        _data(judged, floors, above) | {"split": split, "n": len(asked)},
    )


def check_alike(opened: Sequence[LoadedRun]) -> None:
    """Refuse runs that differ in more than their seeds.

    Raises:
        UsageError: They do.
    """
    first = opened[0].workshop.recipe
    for other in (loaded.workshop.recipe for loaded in opened[1:]):
        same = {"seed": first.seed}
        if other.model_copy(update=same) != first:
            raise UsageError(
                "the runs differ in more than their seeds; give runs of one recipe, so that they share one floor and "
                "their spread is that of seeds"
            )


def _source_name(loaded: LoadedRun, split: str) -> str:
    recipe = loaded.workshop.recipe
    if split == "train":
        return recipe.stages[-1].data
    if recipe.evaluation is None:
        raise UsageError(
            f"the recipe of {loaded.directory.path.name} has no `evaluation` block; add one and train again"
        )
    return recipe.evaluation.test if split == "test" else recipe.evaluation.val


def judge_run(loaded: LoadedRun, split: str) -> Judged:
    """Rank one split's photos and captions by a run, as they are and with exchanged photos."""
    name = _source_name(loaded, split)
    loaded.workshop.store_features([name])
    source = loaded.workshop.source(name)
    images, texts, photo_of_text = embed_pairs(loaded, source)
    others = shuffled(picture_ids(source, len(source)), seed_of(_SEED, "shuffled") % 2**32)
    return Judged(
        name=named(loaded.directory.path),
        seed=loaded.workshop.recipe.seed,
        recipe_hash=loaded.directory.recipe_hash,
        seconds=sum(stage["seconds"] for stage in loaded.directory.read_results()["stages"]),
        real=rank_vectors(images, texts, photo_of_text),
        shuffled=rank_vectors(images[torch.as_tensor(others)], texts, photo_of_text),
    )


def one_way(retrieval: Retrieval, direction: str) -> Ranking:
    """One of the two directions."""
    return retrieval.text_to_image if direction == "text_to_image" else retrieval.image_to_text


def cells(retrieval: Retrieval) -> list[float]:
    """R@1, 5, 10 text to image, then image to text."""
    return [float(one_way(retrieval, way).hits(k).mean()) for way in DIRECTIONS for k in RECALLS]


def _differences(judged: Sequence[Judged], floors: Floors) -> dict[str, dict[str, list[Difference]]]:
    """By floor and by run (and for the mean over runs): run minus floor on the same queries, ordered as `cells`."""
    result: dict[str, dict[str, list[Difference]]] = {}
    for name, floor in (("ridge", floors.ridge), ("ridge_plain_idf", floors.ridge_plain_idf)):
        rows = {
            one.name: _each(lambda way, k, one=one, floor=floor: _pair(one, floor, way, k)) for one in judged
        }
        rows["mean"] = _each(
            lambda way, k, floor=floor: _pair_mean([one.real for one in judged], [floor], way, k)
        )
        result[name] = rows
    return result


def _each(measure: Callable[[str, int], Difference]) -> list[Difference]:
    return [measure(way, k) for way in DIRECTIONS for k in RECALLS]


def _pair(one: Judged, floor: Retrieval, way: str, k: int) -> Difference:
    generator = np.random.default_rng(_SEED)
    return compare_recall(one_way(one.real, way), one_way(floor, way), k, generator=generator)


def _pair_mean(judged: Sequence[Retrieval], others: Sequence[Retrieval], way: str, k: int) -> Difference:
    """The share of some that hit, query by query, against the share of others."""
    hits, other = (
        np.mean([one_way(one, way).hits(k) for one in group], axis=0) for group in (judged, others)
    )
    photos = one_way(others[0], way).photos.tolist()
    return paired_difference(hits, other, generator=np.random.default_rng(_SEED), clusters=photos)


def differences(runs: Sequence[Judged], others: Sequence[Judged]) -> list[Difference]:
    """Share of runs that hit, query by query, minus that of other runs, ordered as `cells`."""
    real, other = ([one.real for one in group] for group in (runs, others))
    return _each(lambda way, k: _pair_mean(real, other, way, k))


def _write_page(
    page: Page, judged: Sequence[Judged], floors: Floors, above: dict[str, dict[str, list[Difference]]]
) -> None:
    columns = ["recall, %", *[f"{text} R@{k}" for text in DIRECTIONS.values() for k in RECALLS]]
    means = np.mean([cells(one.real) for one in judged], axis=0)
    goals = [goal for way in DIRECTIONS for goal in GOALS[way]]
    page.say(
        "Ties count as misses. Square brackets hold 95% bootstrap intervals, in which a photo is drawn with all its",
        "captions; ± is the sample standard deviation over seeds.",
    )
    page.head("Runs and floor")
    page.table(
        columns,
        [
            *[row_of(f"seed {one.seed}", cells(one.real)) for one in judged],
            [f"**mean over {len(judged)} seed(s)**", *spreads(judged)],
            row_of("floor: ridge on the same encoder", cells(floors.ridge)),
            row_of("ridge, words weighted by ln(n/df)", cells(floors.ridge_plain_idf)),
            row_of("ridge on 16 x 16 pixels", cells(floors.pixels)),
            row_of("ridge, pairs shuffled in training", cells(floors.shuffled)),
            *[row_of(f"seed {one.seed}, photos shuffled", cells(one.shuffled)) for one in judged],
            row_of("goal", goals),
            [
                "goal reached by the mean",
                *["reached" if m >= g else "**missed**" for m, g in zip(means, goals, strict=True)],
            ],
        ],
    )
    for floor, title in (
        ("ridge", "the floor"),
        ("ridge_plain_idf", "ridge with ln(n/df), the stronger one"),
    ):
        page.head(f"Run minus {title}, paired, with 95% intervals (percentage points)")
        rows = above[floor]
        labels = {one.name: f"seed {one.seed}" for one in judged} | {"mean": "mean over seeds"}
        page.table(columns, [[labels[name], *map(points, found)] for name, found in rows.items()])
        page.say(_verdict(found for name, found in rows.items() if name != "mean"))
    page.head("Runs")
    page.table(
        ["run", "seed", "training, s", "recipe (SHA-256)"],
        [[one.name, str(one.seed), f"{one.seconds:.0f}", f"`{one.recipe_hash[:16]}`"] for one in judged],
    )
    page.say(
        f"The floor is ridge regression (closed form, alpha {ALPHA:.0f}) from the mean of the grid to the mean TF-IDF",
        "vector of a photo's five training captions; cosine both ways, both sides taken from the training mean",
        "(`isthmus.run.floor`).",
    )


def row_of(label: str, values: Iterable[float]) -> list[str]:
    """A row of percentages."""
    return [label, *map(percent, values)]


def spreads(judged: Sequence[Judged]) -> list[str]:
    """Mean and deviation over seeds of each recall, in bold."""
    found = [spread(values) for values in np.transpose([cells(one.real) for one in judged])]
    if len(judged) == 1:
        return [f"**{percent(one.mean)}**" for one in found]
    return [f"**{percent(one.mean)} ± {percent(one.deviation)}**" for one in found]


def points(found: Difference) -> str:
    """A difference in percentage points with its interval."""
    return interval({key: float(value) for key, value in found.to_json().items()}, scale=100, digits=1)


def _verdict(rows: Iterable[list[Difference]]) -> str:
    found = [difference for row in rows for difference in row]
    above = sum(difference.low > 0 for difference in found)
    beaten = "it is beaten both ways" if above == len(found) else "it is **not** beaten everywhere"
    return f"{above} of {len(found)} intervals lie above zero: {beaten}."


def _data(
    judged: Sequence[Judged], floors: Floors, above: dict[str, dict[str, list[Difference]]]
) -> dict[str, Any]:
    order = [f"{way}.recall_at_{k}" for way in DIRECTIONS for k in RECALLS]
    found = [spread(values) for values in np.transpose([cells(one.real) for one in judged])]
    return {
        "runs": [
            {
                "name": one.name,
                "seed": one.seed,
                "recipe_sha256": one.recipe_hash,
                "training_seconds": one.seconds,
                "metrics": as_json(one.real),
                "shuffled": as_json(one.shuffled),
            }
            for one in judged
        ],
        "spread": {name: value.to_json() for name, value in zip(order, found, strict=True)},
        "floors": {
            "ridge": as_json(floors.ridge),
            "ridge_plain_idf": as_json(floors.ridge_plain_idf),
            "pixels": as_json(floors.pixels),
            "shuffled": as_json(floors.shuffled),
        },
        "run_minus_floor": {
            floor: {
                name: {metric: value.to_json() for metric, value in zip(order, values, strict=True)}
                for name, values in rows.items()
            }
            for floor, rows in above.items()
        },
        "goals": {
            f"{way}.recall_at_{k}": goal
            for way in DIRECTIONS
            for k, goal in zip(RECALLS, GOALS[way], strict=True)
        },
    }


def as_json(retrieval: Retrieval) -> dict[str, Any]:
    """Recalls with intervals."""
    return retrieval.to_json(generator=np.random.default_rng(_SEED))
