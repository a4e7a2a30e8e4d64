"""`isthmus train`, to be read first: for each stage of a recipe, freeze, train, keep what was learnt.

What is built from the recipe stands in `build.workshop`; how one step works in `training.trainer`.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from isthmus.build.stages import build_objectives, stage_settings, stream_options
from isthmus.build.workshop import Workshop, open_workshop
from isthmus.config.load import recipe_hash
from isthmus.config.recipe import Recipe
from isthmus.config.stages import TrainStage
from isthmus.core.devices import keep_freed_memory
from isthmus.core.errors import CheckpointError
from isthmus.core.options import RunOptions
from isthmus.data.stream import BatchStream
from isthmus.run.directory import RunDirectory
from isthmus.run.progress import Progress, announce
from isthmus.run.report import write_run_report
from isthmus.run.show import describe
from isthmus.run.validation import Validation
from isthmus.run.weights import load_weights, save_weights
from isthmus.training.audit import frozen_hash
from isthmus.training.checkpoint import CheckpointIdentity, CheckpointStore
from isthmus.training.durability import write_json
from isthmus.training.lock import DirectoryLock
from isthmus.training.metrics import MetricsLog
from isthmus.training.parameters import TrainableModule, set_trainable
from isthmus.training.settings import Services, StageResult
from isthmus.training.signals import StopSignals
from isthmus.training.trainer import Trainer

RESULT = "result.json"
_LOG = logging.getLogger(__name__)


def train(
    recipe: Recipe, *, out: Path, resume: bool = False, dry_run: bool = False, options: RunOptions
) -> dict[str, Any]:
    """Run the stages of a recipe into a directory.

    Args:
        recipe: What to do.
        out: The run directory.
        resume: Go on where the run in `out` stopped.
        dry_run: Build everything and take one batch of each stage through the model; train and write nothing.
        options: Device, precision, how to report.

    Raises:
        IsthmusError: Whatever stops the run, each cause with its own class.
    """
    keep_freed_memory()
    if dry_run:
        return _rehearse(recipe, options)
    directory = RunDirectory(out)
    with DirectoryLock(out), StopSignals() as stop:
        directory.begin(recipe, resume=resume)
        workshop = open_workshop(recipe, options, tokenizer_folder=directory.tokenizer)
        announce(describe(recipe), options)
        workshop.store_features(sources_of(recipe.stages), stop)
        results = [
            _run_stage(workshop, index, directory, resume=resume, options=options, stop=stop)
            for index in range(len(recipe.stages))
        ]
        _hand_on(workshop, directory)
        summary = {"run": str(out), "stages": [_summary(result) for result in results]}
        directory.add_results(**summary)
        write_run_report(directory)
    return summary


def sources_of(stages: Sequence[TrainStage]) -> list[str]:
    """Names of the sources whose pictures the stages look at."""
    names = [stage.data for stage in stages if stage.rows != "text"]
    return names + [
        stage.validation.data
        for stage in stages
        if stage.validation is not None and (stage.validation.rows or stage.rows) != "text"
    ]


def _run_stage(
    workshop: Workshop,
    index: int,
    directory: RunDirectory,
    *,
    resume: bool,
    options: RunOptions,
    stop: StopSignals,
) -> StageResult:
    """Train one stage, or read its result where an earlier sitting finished it."""
    stage = workshop.recipe.stages[index]
    folder = directory.stage(stage.name)
    done = read_result(folder)
    if done is not None:
        load_weights(workshop.model, folder)
        return done
    _start_from(workshop, index, directory)
    model = cast(TrainableModule, workshop.model)
    split = set_trainable(model, stage.train)
    _LOG.info("stage %s\n%s", stage.name, split.table())
    device = next(workshop.model.parameters()).device
    with (
        BatchStream(
            processor=workshop.processor,
            source=workshop.source(stage.data),
            options=stream_options(workshop.recipe, stage),
        ) as stream,
        Progress(stage.name, options) as progress,
    ):
        settings = stage_settings(workshop.recipe, stage, steps_per_epoch=stream.steps_per_epoch)
        identity = CheckpointIdentity.here(
            recipe_hash=recipe_hash(workshop.recipe), frozen_hash=frozen_hash(model, split)
        )
        settings = replace(settings, device=device, precision=options.precision)
        trainer = Trainer(
            model=model,
            split=split,
            objectives=build_objectives(stage, workshop.model),
            stream=stream,
            settings=settings,
            services=Services(
                validate=Validation.of(stage, workshop, stop),
                log=MetricsLog(folder / "metrics.jsonl", trackers=[progress]),
                checkpoints=CheckpointStore(folder / "checkpoints", identity=identity),
                stop=stop,
                incidents=folder,
            ),
        )
        result = trainer.run(resume=resume)
        write_json(folder / "data.json", asdict(stream.report()))
    save_weights(workshop.model, _learnt(workshop.recipe, index), folder)
    write_json(folder / RESULT, asdict(result))
    return result


def read_result(folder: Path) -> StageResult | None:
    """How a finished stage ended, or None where it has not."""
    file = folder / RESULT
    return StageResult(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _start_from(workshop: Workshop, index: int, directory: RunDirectory) -> None:
    """Put the weights a stage starts from into the model."""
    stage = workshop.recipe.stages[index]
    before = workshop.recipe.stage_before(index)
    if before is not None:
        load_weights(workshop.model, directory.stage(before.name))
    elif stage.start_from is not None:
        other = RunDirectory(Path(stage.start_from))
        if not other.final.is_dir():
            raise CheckpointError(
                f"stage {stage.name} starts from {stage.start_from}, which holds no finished run; "
                "give a directory with a `final` folder"
            )
        load_weights(workshop.model, other.final)


def _learnt(recipe: Recipe, index: int) -> tuple[str, ...]:
    """Parts that moved until the end of a stage, along the stages it builds on."""
    parts: list[str] = []
    at: int | None = index
    while at is not None:
        parts += [part for part in recipe.stages[at].train if part not in parts]
        before = recipe.stage_before(at)
        at = None if before is None else recipe.stages.index(before)
    return tuple(part for part in recipe.model.part_names if part in parts)


def _hand_on(workshop: Workshop, directory: RunDirectory) -> None:
    """Write `final/`: the learnt weights, the tokenizer and the template, so that use equals training."""
    last = len(workshop.recipe.stages) - 1
    save_weights(workshop.model, _learnt(workshop.recipe, last), directory.final)
    workshop.tokenizer.save_pretrained(directory.final)
    template = workshop.template
    if template is not None:
        (directory.final / "template.json").write_text(template.to_json(), encoding="utf-8")


def _summary(result: StageResult) -> dict[str, Any]:
    return {
        "name": result.stage,
        "steps": result.steps,
        "loss": result.loss,
        "seconds": result.seconds,
        "trainable": result.trainable,
        "stopped_early": result.stopped_early,
        "validation": dict(result.validation),
    }


@torch.no_grad()
def _rehearse(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Build everything and look at one batch of each stage."""
    workshop = open_workshop(recipe, options, tokenizer_folder=None)
    announce(describe(recipe), options)
    stages = []
    for stage in recipe.stages:
        split = set_trainable(cast(TrainableModule, workshop.model), stage.train)
        source, chosen = workshop.source(stage.data), stream_options(recipe, stage)
        with BatchStream(processor=workshop.processor, source=source, options=chosen) as stream:
            batch = stream.micro_batches(0)[0]
            steps = stage_settings(recipe, stage, steps_per_epoch=stream.steps_per_epoch).num_steps
        encoded = workshop.model.encode(batch.to(next(workshop.model.parameters()).device))
        del encoded
        row = {
            "name": stage.name,
            "steps": steps,
            "loss": None,
            "seconds": 0.0,
            "trainable": split.num_trainable,
        }
        stages.append(row)
    return {"run": None, "stages": stages}
