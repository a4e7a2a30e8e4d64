"""The page of captions on Flickr8k: official scores, controls, the human line, and what models wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

from results import Page, interval, named

from isthmus.core.errors import UsageError
from isthmus.core.options import RunOptions
from isthmus.data.samples import Source
from isthmus.run.directory import RunDirectory
from isthmus.run.evaluate import evaluate
from isthmus.run.load import LoadedRun, load

GOALS = {"cider": 0.45, "bleu_4": 0.17}
SHUFFLED_CIDER = 0.15
HUMAN = {"cider": 0.788606, "bleu_4": 0.209457}
"""Caption 0 of each test photo against the other four, as measured for the data set (pycocoevalcap 1.2)."""
METRICS = {"cider": "CIDEr", "bleu_4": "BLEU-4", "bleu_1": "BLEU-1", "rouge_l": "ROUGE-L"}
CONTROLS = ("shuffled", "wrong", "blank")
_NUM_EXAMPLES = 5


@final
@dataclass(frozen=True)
class Judged:
    """One run on one split; `examples` are photo keys with what the model wrote."""

    name: str
    recipe_name: str
    recipe_hash: str
    seconds: float
    found: dict[str, Any]
    validation_cider: float | None
    examples: dict[str, str]


def make(runs: Sequence[Path], *, split: str) -> Path:
    """Judge caption runs, or read what `isthmus evaluate` found, and write the page.

    Raises:
        UsageError: A run writes no captions.
    """
    judged = [_judge(run, split) for run in runs]
    best = _best(judged)
    page = Page(
        f"Captions on Flickr8k ({split}, {judged[0].found['n']:,} photos)",
        f"python bench/flickr8k.py caption {' '.join(named(run) for run in runs)} --split {split}",
    )
    _write_scores(page, judged, best)
    _write_human_line(page, judged, split)
    _write_examples(page, judged)
    return page.write(
        "flickr8k-caption" if split == "test" else f"flickr8k-caption-{split}",
        _data(judged, best) | {"split": split},
    )


def _judge(run: Path, split: str) -> Judged:
    loaded = load(run, RunOptions())
    directory, recipe = loaded.directory, loaded.workshop.recipe
    if recipe.evaluation is None or recipe.evaluation.task != "captioning":
        raise UsageError(
            f"{run.name} is no caption run (its recipe does not evaluate captioning); give runs that write"
        )
    source = loaded.workshop.source(recipe.evaluation.test if split == "test" else recipe.evaluation.val)
    found = _stored(directory, split, len(source)) or evaluate(run, split=split, options=RunOptions())
    validation = _stored(directory, "val", None)
    return Judged(
        name=named(run),
        recipe_name=recipe.name,
        recipe_hash=directory.recipe_hash,
        seconds=sum(stage["seconds"] for stage in directory.read_results()["stages"]),
        found={key: value for key, value in found.items() if key != "examples"},
        validation_cider=None if validation is None else float(validation["metrics"]["cider"]["value"]),
        examples=_examples(loaded, source),
    )


def _stored(directory: RunDirectory, split: str, num_rows: int | None) -> dict[str, Any] | None:
    """What an earlier evaluation of the whole split found."""
    found = directory.read_results().get("evaluation", {}).get(split)
    return found if found is not None and num_rows in (None, found["n"]) else None


def _examples(loaded: LoadedRun, source: Source) -> dict[str, str]:
    rows = range(0, len(source), max(1, len(source) // _NUM_EXAMPLES))[:_NUM_EXAMPLES]
    samples = [source.sample(row) for row in rows]
    written = loaded.write(samples, rows="captions")
    return {sample.id: answer.text for sample, answer in zip(samples, written, strict=True)}


def _best(judged: Sequence[Judged]) -> tuple[Judged, str]:
    """The run to hold against the goals, and how it was chosen."""
    if len(judged) == 1:
        return judged[0], "the only run"
    known = [one for one in judged if one.validation_cider is not None]
    if len(known) == len(judged):
        return max(known, key=lambda one: cast(float, one.validation_cider)), "chosen by CIDEr on validation"
    without = ", ".join(one.name for one in judged if one.validation_cider is None)
    raise UsageError(
        f"the best of several runs is chosen on validation, but {without} was not judged there; "
        "run `isthmus evaluate RUN --split val` first"
    )


def _write_scores(page: Page, judged: Sequence[Judged], best: tuple[Judged, str]) -> None:
    page.say(
        "Official COCO scorers with their tokeniser, five references a photo; in brackets 95% bootstrap intervals over",
        "photos. The controls show the same model a blank picture, another row's photo (`shuffled`) and the most",
        "similar other photo (`wrong`).",
    )
    page.head("Scores")
    page.table(
        ["run", *METRICS.values(), "training, s", "recipe (SHA-256)"],
        [
            [
                f"{one.name} ({one.recipe_name})",
                *[interval(one.found["metrics"][metric]) for metric in METRICS],
                f"{one.seconds:.0f}",
                f"`{one.recipe_hash[:16]}`",
            ]
            for one in judged
        ],
    )
    page.head("Controls, CIDEr")
    page.table(
        ["run", "real", *CONTROLS, "real minus the best control"],
        [
            [
                one.name,
                interval(one.found["metrics"]["cider"]),
                *[interval(one.found["controls"][name]["cider"]) for name in CONTROLS],
                _gap(one.found["controls"]),
            ]
            for one in judged
        ],
    )
    page.head(f"Goals, {best[0].name} ({best[1]})")
    page.table(["", "found", "goal", ""], [list(row) for row in _goals(best[0])])
    for one in judged:
        if "changes" in one.found:
            page.say(f"{one.name} was judged with {' '.join(one.found['changes'])}, chosen on validation.")


def _gap(controls: dict[str, Any]) -> str:
    return f"{interval(controls['real_minus_best']['cider'])} ({controls['best_control']})"


def _goals(one: Judged) -> list[tuple[str, str, str, str]]:
    rows = []
    for metric, goal in GOALS.items():
        value = one.found["metrics"][metric]["value"]
        rows.append((METRICS[metric], f"{value:.3f}", f"at least {goal}", _reached(value >= goal)))
    value = one.found["controls"]["shuffled"]["cider"]["value"]
    rows.append(
        (
            "CIDEr, shuffled photos",
            f"{value:.3f}",
            f"at most {SHUFFLED_CIDER}",
            _reached(value <= SHUFFLED_CIDER),
        )
    )
    return rows


def _reached(is_reached: bool) -> str:
    return "reached" if is_reached else "**missed**"


def _write_human_line(page: Page, judged: Sequence[Judged], split: str) -> None:
    lines = [one.found.get("against_all_but_first_reference") for one in judged]
    if lines[0] is None:
        return
    page.head("Beside people: against references 1 to 4 only")
    rows = [
        [one.name, *[interval(line["model"][metric]) for metric in METRICS]]
        for one, line in zip(judged, lines, strict=True)
    ]
    rows.append(
        ["people: caption 0", *[interval(lines[0]["human_first_caption"][metric]) for metric in METRICS]]
    )
    if split == "test":
        published = {metric: f"{value:.3f}" for metric, value in HUMAN.items()}
        rows.append(
            ["people, as published with the data", *[published.get(metric, "") for metric in METRICS]]
        )
    page.table(["", *METRICS.values()], rows)


def _write_examples(page: Page, judged: Sequence[Judged]) -> None:
    page.head("What the runs write")
    page.say(
        "Five rows at fixed places of the split, not chosen. Photos and human captions are not shown:",
        "the data set has no open licence.",
    )
    page.table(
        ["photo", *[one.name for one in judged]],
        [[f"`{key}`", *[one.examples[key] for one in judged]] for key in judged[0].examples],
    )


def _data(judged: Sequence[Judged], best: tuple[Judged, str]) -> dict[str, Any]:
    return {
        "runs": [
            {
                "name": one.name,
                "recipe": one.recipe_name,
                "recipe_sha256": one.recipe_hash,
                "training_seconds": one.seconds,
                **one.found,
                "examples": one.examples,
            }
            for one in judged
        ],
        "best": {"name": best[0].name, "how": best[1]},
        "goals": [
            dict(zip(("what", "found", "goal", "reached"), row, strict=True)) for row in _goals(best[0])
        ],
        "human": HUMAN,
    }
