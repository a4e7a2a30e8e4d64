"""`isthmus train`, to be read first: for each stage of a recipe, freeze, train, keep what was learnt.

What is built from the recipe stands in `build.workshop`; how one step works in `training.trainer`.
"""

import json
import logging
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from isthmus.build.stages import build_objectives, frozen_inside, stage_settings, stream_options
from isthmus.build.workshop import Workshop, open_workshop
from isthmus.config.recipe import Recipe
from isthmus.config.stages import TrainStage
from isthmus.core.devices import keep_freed_memory
from isthmus.core.errors import CheckpointError, Stopped
from isthmus.core.options import RunOptions
from isthmus.data.rows import WORDS_ONLY
from isthmus.data.stream import BatchStream
from isthmus.data.vocabulary import load_tokenizer
from isthmus.models.language_model import LanguageModelOnly
from isthmus.parts.language.lora import LoraUpdate, merge_lora
from isthmus.run.directory import TEMPLATE, RunDirectory, replace_json
from isthmus.run.progress import Progress, announce
from isthmus.run.report import write_run_report
from isthmus.run.show import describe
from isthmus.run.sitting import Sitting
from isthmus.run.weights import copy_weights, load_weights, put_back, save_weights, saved_parts
from isthmus.training.audit import frozen_hash
from isthmus.training.checkpoint import CheckpointIdentity
from isthmus.training.durability import sync
from isthmus.training.launch import first_alone, processes_of_run, wait_for_all
from isthmus.training.lock import DirectoryLock
from isthmus.training.parameters import TrainableModule, set_trainable
from isthmus.training.recomputation import recompute_activations
from isthmus.training.settings import StageResult
from isthmus.training.signals import StopAsked, StopSignals
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
    with processes_of_run(options.device) as processes, StopSignals() as stop:
        sitting = Sitting(resume=resume, options=options, stop=stop, processes=processes)
        if not sitting.writes:
            with sitting.in_silence() as silent:
                return _run_stages(recipe, directory, silent)
        directory.make()
        with DirectoryLock(out):
            directory.begin(recipe, resume=resume)
            return _run_stages(recipe, directory, sitting)


def _run_stages(recipe: Recipe, directory: RunDirectory, sitting: Sitting) -> dict[str, Any]:
    """Build, then train one stage after another; process 0 writes, others only compute."""
    with first_alone(sitting.processes):
        workshop = open_workshop(recipe, sitting.options, tokenizer_folder=directory.tokenizer)
        announce(describe(recipe, tokenizer=workshop.tokenizer), sitting.options)
        _store_features(workshop, sitting.stop)
    first = _first_weights(workshop)
    results = []
    for index in range(len(recipe.stages)):
        put_back(workshop.model, first)
        results.append(_run_stage(workshop, index, directory, sitting))
    summary = {"run": str(directory.path), "stages": [_summary(result) for result in results]}
    if sitting.writes:
        _hand_on(workshop, directory)
        directory.add_results(summary)
        write_run_report(directory)
    return summary


def _store_features(workshop: Workshop, stop: StopSignals) -> None:
    """Encode the pictures that are not stored yet; a stop signal keeps what was stored."""
    try:
        workshop.store_features(sources_of(workshop.recipe.stages), stop)
    except StopAsked:
        number = stop.received
        assert number is not None
        raise Stopped(
            number,
            f"stopped by {signal.Signals(number).name} while features were stored; what was stored is kept; "
            "go on with --resume",
        ) from None


def _first_weights(workshop: Workshop) -> dict[str, Tensor]:
    """A copy of what learns, where a stage does not start from the one before; else nothing."""
    stages = workshop.recipe.stages
    if all(stage.start_from is None for stage in stages[1:]):
        return {}
    return copy_weights(
        workshop.model, tuple(dict.fromkeys(part for stage in stages for part in stage.train))
    )


def sources_of(stages: Sequence[TrainStage]) -> list[str]:
    """Names of the sources whose pictures the stages look at."""
    names = [stage.data for stage in stages if stage.rows not in WORDS_ONLY]
    return names + [
        stage.validation.data
        for stage in stages
        if stage.validation is not None and (stage.validation.rows or stage.rows) not in WORDS_ONLY
    ]


def _run_stage(workshop: Workshop, index: int, directory: RunDirectory, sitting: Sitting) -> StageResult:
    """Train one stage, or read its result where an earlier sitting finished it."""
    stage = workshop.recipe.stages[index]
    folder = directory.stage(stage.name)
    done = read_result(folder)
    if done is not None:
        load_weights(workshop.model, folder)
        return done
    carried = _start_from(workshop, index, directory)
    model = cast(TrainableModule, workshop.model)
    split = set_trainable(model, stage.train, frozen=frozen_inside(stage, workshop.model))
    recompute_activations(model, stage.recompute)
    _LOG.info("stage %s\n%s", stage.name, split.table())
    device = next(workshop.model.parameters()).device
    with sitting.stream(workshop, stage) as stream, Progress(stage.name, sitting.options) as progress:
        settings = stage_settings(workshop.recipe, stage, steps_per_epoch=stream.steps_per_epoch)
        identity = CheckpointIdentity.here(
            recipe_hash=directory.recipe_hash, frozen_hash=frozen_hash(model, split)
        )
        settings = replace(settings, device=device, precision=sitting.options.precision)
        trainer = Trainer(
            model=model,
            split=split,
            objectives=build_objectives(stage, workshop.model),
            stream=stream,
            settings=settings,
            services=sitting.services(workshop, stage, folder=folder, identity=identity, progress=progress),
        )
        result = trainer.run(resume=sitting.resume)
        if sitting.writes:
            replace_json(folder / "data.json", asdict(stream.report()))
    if sitting.writes:
        save_weights(workshop.model, _learnt(workshop.recipe, index, carried), folder)
        replace_json(folder / RESULT, asdict(result))
    wait_for_all(sitting.processes)
    return result


def read_result(folder: Path) -> StageResult | None:
    """How a finished stage ended, or None where it has not."""
    file = folder / RESULT
    return StageResult(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _start_from(workshop: Workshop, index: int, directory: RunDirectory) -> tuple[str, ...]:
    """Put the weights a stage starts from into the model; returns the parts they belong to."""
    stage = workshop.recipe.stages[index]
    before = workshop.recipe.stage_before(index)
    if before is not None:
        return load_weights(workshop.model, directory.stage(before.name))
    if stage.start_from is None:
        return ()
    other = RunDirectory(Path(stage.start_from))
    if not other.final.is_dir():
        raise CheckpointError(
            f"stage {stage.name} starts from {stage.start_from}, which holds no finished run; "
            "give a directory with a `final` folder"
        )
    _check_carried(saved_parts(other.final), workshop, other, stage.name)
    return load_weights(workshop.model, other.final, from_other_run=True)


def _check_carried(parts: tuple[str, ...], workshop: Workshop, other: RunDirectory, stage: str) -> None:
    """Refuse parts that this model lacks, and text parts that learnt with another tokenizer."""
    known = workshop.recipe.model.part_names
    strange = [part for part in parts if part not in known]
    if strange:
        raise CheckpointError(
            f"stage {stage} starts from {other.path}, which learnt {', '.join(strange)}; "
            f"this model has only {', '.join(known)}"
        )
    reads = [part for part in parts if part in ("language", "lora", "text")]
    if reads and load_tokenizer(str(other.final)).get_vocab() != workshop.tokenizer.get_vocab():
        raise CheckpointError(
            f"stage {stage} starts from {other.path}, whose {', '.join(reads)} learnt with another tokenizer; "
            "train this recipe's tokenizer on the same data with the same settings"
        )


def _learnt(recipe: Recipe, index: int, carried: tuple[str, ...]) -> tuple[str, ...]:
    """Parts that differ from a fresh model after a stage: what it started from and what it trained."""
    return tuple(part for part in recipe.model.part_names if part in (*carried, *recipe.stages[index].train))


def _hand_on(workshop: Workshop, directory: RunDirectory) -> None:
    """Write `final/`: the learnt weights, the tokenizer and the template, so that use equals training.

    A language model on its own is also written as a Hugging Face folder, `final/language`, for other recipes to name;
    low-rank updates are merged there, and written apart as a PEFT folder, `final/lora`.
    """
    if directory.final.is_dir():
        return
    unfinished = directory.path / "final.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    last = directory.stage(workshop.recipe.stages[-1].name)
    save_weights(workshop.model, saved_parts(last), unfinished)
    workshop.tokenizer.save_pretrained(unfinished)
    template = workshop.template
    if template is not None:
        (unfinished / TEMPLATE).write_text(template.to_json(), encoding="utf-8")
    update = workshop.model.parts().get("lora")
    if isinstance(update, LoraUpdate):
        update.save(unfinished / "lora")
    if isinstance(workshop.model, LanguageModelOnly):
        merge_lora(workshop.model.language.network)
        workshop.model.language.save_as_checkpoint(unfinished / "language")
        workshop.tokenizer.save_pretrained(unfinished / "language")
    unfinished.rename(directory.final)
    sync(directory.path)


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
    announce(describe(recipe, tokenizer=workshop.tokenizer), options)
    stages = []
    for stage in recipe.stages:
        model = cast(TrainableModule, workshop.model)
        split = set_trainable(model, stage.train, frozen=frozen_inside(stage, workshop.model))
        source, chosen = workshop.source(stage.data), stream_options(recipe, stage)
        with BatchStream(processor=workshop.processor_of(stage), source=source, options=chosen) as stream:
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
