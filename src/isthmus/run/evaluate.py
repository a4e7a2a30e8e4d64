"""`isthmus evaluate`: what a run can do, with intervals, and whether it comes from the picture."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from isthmus.build.sources import build_source
from isthmus.config.evaluation import Evaluation
from isthmus.config.load import parse_recipe, resolved_yaml
from isthmus.core.errors import UsageError
from isthmus.core.options import RunOptions
from isthmus.data.samples import Source, Subset
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.llava import LlavaConversations
from isthmus.data.sources.shards import Shards
from isthmus.run.captioning import judge_captions
from isthmus.run.classes import judge_probe, judge_zero_shot
from isthmus.run.classification import judge_classification
from isthmus.run.evaluations import with_judged
from isthmus.run.load import LoadedRun, load
from isthmus.run.pictures import usable
from isthmus.run.questions import judge_answers
from isthmus.run.reconstruction import judge_reconstruction
from isthmus.run.regions import judge_regions
from isthmus.run.report import write_run_report
from isthmus.run.retrieval import judge_retrieval

Split = Literal["val", "test"]


def evaluate(
    run: Path,
    *,
    data: str | None = None,
    images: Path | None = None,
    split: str = "test",
    limit: int | None = None,
    changes: Sequence[str] = (),
    options: RunOptions,
) -> dict[str, Any]:
    """Judge a run and add the numbers to its results and report; another task's stay beside the recipe's own.

    Args:
        run: The run directory.
        data: A source's name in the recipe, or a path to shards, a folder or a LLaVA JSON file; None takes the
            recipe's own.
        images: Where the pictures lie that a LLaVA JSON file names; None: beside it.
        split: Which of the recipe's two sources.
        limit: Most samples.
        changes: What is judged otherwise than the run's recipe says, such as `evaluation.decoding.beams=8`; they are
            written beside the numbers.
        options: Device, precision, seed.

    Raises:
        UsageError: The recipe says nothing about evaluation, there is no such source, or a change is not below
            `evaluation`.
        RecipeError: A change is a mistake.
        CheckpointError: There is no finished run, or its results are damaged.
    """
    loaded = _changed(load(run, options), changes)
    settings = loaded.workshop.recipe.evaluation
    if settings is None:
        raise UsageError(
            f"the recipe of {run} has no `evaluation` block, so there is nothing to measure; add one and train again"
        )
    named = settings.val if split == "val" else settings.test
    name = named if data is None else data
    before = loaded.directory.read_results()  # damaged ones are refused here, not after minutes of judging
    judged = judge(loaded, _source(loaded, name, images), settings, limit=limit)
    examples = judged.pop("examples")
    if changes:
        judged["changes"] = list(changes)
    own = loaded.directory.read_recipe().evaluation
    own_task = judged["task"] if own is None else own.task
    where = split if data is None else name
    measured = with_judged(before, where, judged, own_task=own_task)
    loaded.directory.add_results(
        measured | {"examples": examples, "examples_source": name, "examples_task": judged["task"]}
    )
    write_run_report(loaded.directory)
    return judged


def _changed(loaded: LoadedRun, changes: Sequence[str]) -> LoadedRun:
    """The run with other settings of evaluation."""
    if not changes:
        return loaded
    recipe, origin = loaded.workshop.recipe, f"the recipe of {loaded.directory.path}"
    changed = parse_recipe(resolved_yaml(recipe), origin, changes)
    if changed.model_copy(update={"evaluation": recipe.evaluation}) != recipe:
        raise UsageError(
            f"'{' '.join(changes)}' changes more than how {loaded.directory.path} is judged, but it is trained; "
            "give keys below evaluation, such as evaluation.decoding.beams=8"
        )
    return replace(loaded, workshop=replace(loaded.workshop, recipe=changed))


def judge(loaded: LoadedRun, source: Source, settings: Evaluation, *, limit: int | None) -> dict[str, Any]:
    """Measure on a source: `metrics`, `controls`, `n`, `skipped`, and `examples` for the report.

    Rows whose picture cannot be read are left out and named in `skipped`. Where `limit` leaves rows out, `of` is how
    many there are.

    Raises:
        DataError: More than 1% of the rows cannot be used.
    """
    good, skipped = usable(loaded, cast(Source, source[:limit]))
    rows = Subset(source, good)
    partial = limit is not None and limit < len(source)
    match settings.task:
        case "questions":
            judged = judge_answers(loaded, rows, seed=loaded.seed, partial=partial)
        case "captioning":
            judged = judge_captions(loaded, rows, seed=loaded.seed)
        case "retrieval":
            judged = judge_retrieval(loaded, rows, seed=loaded.seed)
        case "zero_shot":
            judged = judge_zero_shot(loaded, rows, settings.prompts, seed=loaded.seed)
        case "probe":
            judged = judge_probe(loaded, rows, settings, seed=loaded.seed)
        case "regions":
            judged = judge_regions(loaded, rows, seed=loaded.seed)
        case "reconstruction":
            judged = judge_reconstruction(loaded, rows, seed=loaded.seed)
        case "classification":
            judged = judge_classification(loaded, rows, seed=loaded.seed)
    for example in judged["examples"]:
        # Numbers of rows in the source, so that the report finds the pictures.
        example["row"] = good[example["row"]]
        if "hits" in example:
            example["hits"] = [good[hit] for hit in example["hits"]]
    return judged | {"skipped": list(skipped)} | ({"of": len(source)} if partial else {})


def _source(loaded: LoadedRun, name: str, images: Path | None) -> Source:
    recipe = loaded.workshop.recipe
    is_json = name not in recipe.data and Path(name).suffix == ".json"
    if images is not None and not is_json:
        raise UsageError(
            f"--images says where the pictures of a LLaVA JSON file lie, but --data is '{name}'; leave it out"
        )
    if name in recipe.data:
        return build_source(recipe.data[name], recipe.data)
    path = Path(name)
    if name and path.is_dir():
        tables = sorted(entry for entry in path.iterdir() if entry.suffix in (".csv", ".tsv", ".jsonl"))
        return Folder(path, table=tables[0] if tables else None)
    if is_json:
        return LlavaConversations(path, path.parent if images is None else images)
    if path.suffix == ".tar" or "*" in name or "{" in name:
        return Shards(name)
    raise UsageError(
        f"--data '{name}' is neither a source of the recipe ({', '.join(recipe.data)}) nor a path to shards, a folder "
        "or a LLaVA JSON file"
    )
