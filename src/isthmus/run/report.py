"""A run's page for people, from what stands in its directory; what is not there (yet) is left out.

The page itself is drawn by `reports.page`, the rows to look at are chosen in `report_examples`.
"""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from isthmus.config.recipe import Recipe
from isthmus.core.errors import IsthmusError
from isthmus.reports.content import (
    Chart,
    Curve,
    Header,
    ModelTables,
    NextCommand,
    PartRow,
    Provenance,
    ReportContent,
    StageCurves,
    StageRow,
)
from isthmus.reports.page import write_report
from isthmus.reports.wording import percent
from isthmus.run.capfilt_report import with_filtered
from isthmus.run.directory import RunDirectory, read_json
from isthmus.run.instruct_report import with_written
from isthmus.run.report_examples import examples_of
from isthmus.run.report_results import evaluation_notes, results_of, verdict_of, why_measure
from isthmus.run.show import show

Json = Mapping[str, Any]
"""An object from one of the run's JSON files."""

_GAP = "val.shuffled_gap."
_RECALL = "_r1"


def write_run_report(directory: RunDirectory) -> Path:
    """Write `report.html` of a run from its recipe, its stages' logs and its results, and return where it is.

    The page holds what was measured and trained so far. What belongs on it but cannot be read here, such as pictures of
    data that is on another machine, is left out and named at the end of the page.

    Raises:
        CheckpointError: The directory is no run, or its recipe was changed by hand.
        RecipeError: The recipe in it has mistakes.
        MachineError: The page cannot be written.
    """
    recipe, measured = directory.read_recipe(), directory.read_results()
    stages = measured.get("stages", [])
    logs = {stage.name: _read_log(directory.stage(stage.name) / "metrics.jsonl") for stage in recipe.training}
    examples, example_notes = examples_of(recipe, measured, directory.path)
    model, model_notes = _model(directory, recipe, measured)
    notes = (
        *evaluation_notes(measured),
        *model_notes,
        *_stage_notes(directory, recipe, measured, logs),
        *example_notes,
    )
    content = ReportContent(
        header=_header(directory, recipe, measured),
        results=with_written(with_filtered(results_of(recipe, measured), stages), stages),
        curves=_curves(logs),
        examples=examples,
        model=model,
        provenance=_provenance(directory, recipe, measured, notes),
        next_commands=tuple(_next_commands(str(directory.path), recipe, measured)),
    )
    write_report(content, directory.report)
    return directory.report


def _header(directory: RunDirectory, recipe: Recipe, measured: Json) -> Header:
    """Which run, when it last gave a number, where, for how long."""
    stages = measured.get("stages", [])
    trained = sum(stage["seconds"] for stage in stages) if stages else None
    finished = directory.results.stat().st_mtime if directory.results.is_file() else None
    place = read_json(directory.path / "environment.json")
    words = [str(place[key]) for key in ("system", "cpu_capability") if key in place]
    if "threads" in place:
        words.append(f"{place['threads']} thread{'s' if place['threads'] != 1 else ''}")
    return Header(
        recipe=recipe.name,
        verdict=verdict_of(recipe, measured),
        finished=None if finished is None else datetime.fromtimestamp(finished, tz=UTC),
        machine=", ".join(words),
        seconds=measured.get("seconds", trained),
        peak_memory_bytes=measured.get("peak_memory_bytes"),
    )


@final
@dataclass(frozen=True)
class _Log:
    """What a stage logged, by kind of record, and how many lines were no records."""

    records: tuple[Json, ...] = ()
    damaged: int = 0

    def curve(self, kind: str, key: str, label: str) -> Curve:
        """One number over the steps; null, which stands for a number that was not finite, becomes NaN."""
        points = [
            (float(record["step"]), math.nan if record[key] is None else float(record[key]))
            for record in self.records
            if record["kind"] == kind and key in record
        ]
        return Curve(label=label, points=tuple(points))

    @property
    def validation_keys(self) -> tuple[str, ...]:
        """Names of what validation measured, in the order in which they first occur."""
        return tuple(
            dict.fromkeys(
                key
                for record in self.records
                if record["kind"] == "validation"
                for key in record
                if key.startswith("val.")
            )
        )


def _read_log(path: Path) -> _Log:
    """Read a stage's metrics; a line that a crash cut short is counted, not used."""
    if not path.is_file():
        return _Log()
    records, damaged = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and {"kind", "step"} <= record.keys():
            records.append(record)
        else:
            damaged += 1
    return _Log(tuple(records), damaged)


def _curves(logs: Mapping[str, _Log]) -> tuple[StageCurves, ...]:
    """The charts of the stages that logged something."""
    found = ((name, tuple(_charts(log))) for name, log in logs.items())
    return tuple(StageCurves(stage=name, charts=charts) for name, charts in found if charts)


def _charts(log: _Log) -> Iterable[Chart]:
    """Losses together; then what another row's picture costs, how often the right one comes first, and the rest."""
    keys = log.validation_keys
    gaps = [key for key in keys if key.startswith(_GAP)]
    recalls = [key for key in keys if key.endswith(_RECALL)]
    losses = [key for key in keys if key not in gaps and key not in recalls]
    held_out = [log.curve("validation", key, _label("held out", key, losses)) for key in losses]
    curves = [curve for curve in (log.curve("train", "loss", "training"), *held_out) if curve.points]
    if curves:
        title = "Loss in training and on held-out rows" if held_out else "Loss in training"
        yield Chart(title=title, curves=tuple(curves), log=_spans_a_decade(curves))
    if gaps:
        shown = tuple(log.curve("validation", key, _label("gap", key, gaps)) for key in gaps)
        yield Chart(title="How much worse the held-out loss gets with another row's picture", curves=shown)
    if recalls:
        words = {key: key.removeprefix("val.").removesuffix(_RECALL).replace("_", " ") for key in recalls}
        shown = tuple(log.curve("validation", key, word) for key, word in words.items())
        yield Chart(title="Held-out queries whose match comes first (R@1)", curves=shown)


def _label(word: str, key: str, rivals: Sequence[str]) -> str:
    """The word alone where it is clear, else with the name of the loss."""
    return word if len(rivals) == 1 else f"{word}: {key.rsplit('.', 1)[-1].replace('_', ' ')}"


def _spans_a_decade(curves: Iterable[Curve]) -> bool:
    values = [value for curve in curves for _, value in curve.points if math.isfinite(value)]
    return bool(values) and 0 < 10 * min(values) <= max(values)


def _model(directory: RunDirectory, recipe: Recipe, measured: Json) -> tuple[ModelTables, tuple[str, ...]]:
    """The parameter table and the stages; and what had to be left out."""
    trains = {stage.name: tuple(stage.train) for stage in recipe.training}
    trained_model = {stage.name: stage.model for stage in recipe.training}
    rows = tuple(
        StageRow(
            name=stage["name"],
            steps=stage["steps"],
            seconds=stage["seconds"],
            loss=stage["loss"],
            trainable=stage["trainable"],
            trains=trains.get(stage["name"], ()),
        )
        for stage in measured.get("stages", [])
    )
    try:
        table: Json = show(str(directory.path))
    except (IsthmusError, OSError) as error:
        return ModelTables(stages=rows), (f"The parameter table is left out: {error}.",)
    parts = tuple(
        PartRow(
            name=part["name"] if model is None else f"{model}: {part['name']}",
            kind=part["kind"],
            parameters=part["parameters"],
            trained_in=tuple(
                name
                for name, learnt in trains.items()
                if part["name"] in learnt and trained_model[name] == model
            ),
        )
        for model, one in table.get("models", {None: table}).items()
        for part in one["parts"]
    )
    return ModelTables(parts=parts, stages=rows), ()


def _stage_notes(
    directory: RunDirectory, recipe: Recipe, measured: Json, logs: Mapping[str, _Log]
) -> Iterable[str]:
    """What a reader should know of the data and of the way each stage went."""
    early = {stage["name"] for stage in measured.get("stages", []) if stage.get("stopped_early")}
    for stage in recipe.training:
        data = read_json(directory.stage(stage.name) / "data.json")
        if stage.name in early:
            yield f"Stage {stage.name} was ended by its cap of {stage.minutes} minutes."
        if data.get("skipped", 0):
            named, skipped = list(data["named"]), data["skipped"]
            more = f"; and {skipped - len(named)} more" if skipped > len(named) else ""
            why = "; ".join(named) + more
            yield f"Stage {stage.name}: samples skipped because they cannot be used: {skipped:,} ({why})."
        if data.get("truncated_fraction", 0):
            yield f"Stage {stage.name}: {percent(data['truncated_fraction'], 1)} of the rows were cut off."
        if data.get("supervised_fraction", 0):
            yield f"Stage {stage.name}: {percent(data['supervised_fraction'], 1)} of the tokens carried loss."
        if damaged := logs[stage.name].damaged:
            yield f"Damaged lines of {stage.name}/metrics.jsonl that are left out: {damaged}."


def _provenance(
    directory: RunDirectory, recipe: Recipe, measured: Json, notes: tuple[str, ...]
) -> Provenance:
    place = read_json(directory.path / "environment.json")
    versions = dict(place.get("packages", {}))
    if "python" in place:
        versions["python"] = place["python"]
    return Provenance(
        command=measured.get("command", ""),
        seed=recipe.seed,
        versions=tuple((name, str(version)) for name, version in versions.items()),
        recipe_yaml=directory.recipe_file.read_text(encoding="utf-8"),
        recipe_sha256=directory.recipe_hash,
        notes=notes,
    )


def _next_commands(run: str, recipe: Recipe, measured: Json) -> Iterable[NextCommand]:
    """What can be done with this run, ready to be copied."""
    quoted = shlex.quote(run)
    task = None if recipe.evaluation is None else recipe.evaluation.task
    if task == "questions":
        yield NextCommand(
            command=f'isthmus ask {quoted} photo.jpg "question"', why="Ask about a picture of yours."
        )
    elif task == "captioning":
        yield NextCommand(command=f"isthmus ask {quoted} photo.jpg", why="Caption a picture of yours.")
    if task is not None:
        yield NextCommand(
            command=f"isthmus evaluate {quoted} --split test", why=why_measure(recipe, measured)
        )
    yield NextCommand(command=f"isthmus show {quoted} --table", why="See every part and its parameters.")
    if not recipe.training:
        return
    first, copy = recipe.training[0], shlex.quote(f"{run}-2")
    lr, place = first.optimizer.lr, recipe.stages.index(first)
    change = f"stages.{place}.optimizer.lr={lr / 2:g}"
    yield NextCommand(
        command=f"isthmus train {shlex.quote(f'{run}/recipe.yaml')} {change} --out {copy}",
        why=f"Train again with half of the first stage's learning rate, which was {lr:g}.",
    )
