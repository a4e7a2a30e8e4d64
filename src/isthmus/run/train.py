"""`isthmus train`, to be read first: for each stage of a recipe, freeze, train, keep what was learnt.

What is built from the recipe stands in `build.workshop`; how one step works in `training.trainer`.
"""

import logging
import shutil
import signal
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from isthmus.build.stages import build_objectives, frozen_inside, sources_of, stage_settings
from isthmus.build.workshop import Workshop, open_workshop
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.instruct import InstructStage
from isthmus.config.recipe import Recipe
from isthmus.config.stages import Stage, TrainStage
from isthmus.core.devices import keep_freed_memory, precision_for
from isthmus.core.errors import CheckpointError, Stopped
from isthmus.core.files import sync
from isthmus.core.options import RunOptions
from isthmus.models.language_model import LanguageModelOnly
from isthmus.models.med import Med
from isthmus.parts.language.lora import LoraUpdate, merge_lora
from isthmus.run.capfilt_stage import filter_captions, made_source
from isthmus.run.directory import TEMPLATE, RunDirectory, read_json, replace_json
from isthmus.run.instruct_stage import write_data
from isthmus.run.progress import Progress, announce
from isthmus.run.rehearsal import rehearse
from isthmus.run.report import write_run_report
from isthmus.run.show import describe
from isthmus.run.sitting import Sitting
from isthmus.run.start import Start, check_starts
from isthmus.run.weights import copy_weights, load_weights, put_back, save_weights, saved_parts
from isthmus.training.audit import frozen_hash
from isthmus.training.checkpoint import CheckpointIdentity
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
    check_starts(recipe)
    if dry_run:
        return rehearse(recipe, options)
    directory = RunDirectory(out)
    with processes_of_run(options.device) as processes, StopSignals() as stop:
        sitting = Sitting(resume=resume, options=options, stop=stop, processes=processes)
        if not sitting.writes:
            with sitting.in_silence() as silent:
                return _run_stages(recipe, directory, silent)
        directory.make()
        with DirectoryLock(out):
            if resume and not directory.recipe_file.is_file():
                _LOG.info("%s holds no run to go on with; a new one begins", out)
            with directory.begun(recipe, resume=resume):
                return _run_stages(recipe, directory, sitting)


def _run_stages(recipe: Recipe, directory: RunDirectory, sitting: Sitting) -> dict[str, Any]:
    """Build each model, then train its stages one after another; process 0 writes, others only compute."""
    results: list[dict[str, Any]] = []
    workshop = None
    for name, indices in groupby(range(len(recipe.stages)), key=lambda index: _about(recipe.stages[index])):
        if isinstance(name, CapfiltStage):
            workshop = None  # whose place others take; what follows is built anew
            results.append(filter_captions(recipe, name, directory, sitting))
            recipe = recipe.with_data({name.makes: made_source(directory, name)})
            continue
        if isinstance(name, InstructStage):
            workshop = None
            results.append(write_data(recipe, name, directory, sitting))
            continue
        with first_alone(sitting.processes):
            workshop = _open(recipe, name, directory, sitting.options)
            _store_features(workshop, sitting.stop)
        first = _first_weights(workshop)
        for index in indices:
            put_back(workshop.model, first)
            start = Start.of(recipe, index, directory)
            results.append(_summary(_run_stage(workshop, start, directory, sitting)))
    summary = {"run": str(directory.path), "stages": results}
    if sitting.writes:
        if recipe.training:
            if workshop is None or recipe.final_name != recipe.training[-1].model:
                workshop = _open(recipe, recipe.final_name, directory, sitting.options)
                load_weights(workshop.model, directory.stage(workshop.recipe.training[-1].name))
            _hand_on(workshop, directory)
        directory.add_results(summary)
        write_run_report(directory)
    return summary


def _about(stage: Stage) -> str | CapfiltStage | InstructStage | None:
    """What stages have in common that are run with one model built: its name; one that makes data stands alone."""
    return stage.model if isinstance(stage, TrainStage) else stage


def _open(recipe: Recipe, name: str | None, directory: RunDirectory, options: RunOptions) -> Workshop:
    """Build one of the recipe's models with all it needs, and say what it is made of."""
    alone = recipe.alone(name)
    workshop = open_workshop(alone, options, tokenizer_folder=directory.tokenizer(name))
    if name is not None:
        _LOG.info("model %s", name)
    announce(describe(alone, tokenizer=workshop.tokenizer), options)
    return workshop


def _store_features(workshop: Workshop, stop: StopSignals) -> None:
    """Encode the pictures that are not stored yet; a stop signal keeps what was stored."""
    try:
        workshop.store_features(sources_of(workshop.recipe.training), stop)
    except StopAsked:
        number = stop.received
        assert number is not None
        raise Stopped(
            number,
            f"stopped by {signal.Signals(number).name} while features were stored; what was stored is kept; "
            "go on with --resume",
        ) from None


def _first_weights(workshop: Workshop) -> dict[str, Tensor]:
    """A copy of what stages learn or take over, where one does not simply go on from the one before; else nothing."""
    stages = workshop.recipe.training
    if all(stage.start_from is None and not stage.drop and not stage.fresh for stage in stages[1:]):
        return {}
    names = [stage.name for stage in stages]
    if any(stage.start_from is not None and stage.start_from not in names for stage in stages):
        # From another model or run may come parts that no stage here trains.
        return copy_weights(workshop.model, workshop.recipe.final_model.part_names)
    return copy_weights(
        workshop.model, tuple(dict.fromkeys(part for stage in stages for part in stage.train))
    )


def _run_stage(workshop: Workshop, start: Start, directory: RunDirectory, sitting: Sitting) -> StageResult:
    """Train one stage, or read its result where an earlier sitting finished it."""
    stage = start.stage
    folder = directory.stage(stage.name)
    done = read_result(folder)
    if done is not None:
        load_weights(workshop.model, folder)
        return done
    carried = start.take_over(workshop)
    model = cast(TrainableModule, workshop.model)
    split = set_trainable(model, stage.train, frozen=frozen_inside(stage, workshop.model))
    recompute_activations(model, stage.recompute)
    if isinstance(workshop.model, Med) and workshop.model.momentum is not None:
        workshop.model.momentum.others = sitting.processes
    workshop.model.begin()
    _LOG.info("stage %s\n%s", stage.name, split.table())
    device = next(workshop.model.parameters()).device
    with sitting.stream(workshop, stage) as stream, Progress(stage.name, sitting.options) as progress:
        settings = stage_settings(workshop.recipe, stage, steps_per_epoch=stream.steps_per_epoch)
        identity = CheckpointIdentity.here(
            recipe_hash=directory.recipe_hash, frozen_hash=frozen_hash(model, split)
        )
        precision = precision_for(workshop.model, device, sitting.options.precision)
        settings = replace(settings, device=device, precision=precision)
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
        learnt = (*carried, *stage.train)
        save_weights(
            workshop.model,
            tuple(part for part in workshop.recipe.final_model.part_names if part in learnt),
            folder,
        )
        replace_json(folder / RESULT, asdict(result))
    wait_for_all(sitting.processes)
    return result


def read_result(folder: Path) -> StageResult | None:
    """How a finished stage ended, or None where it has not.

    Raises:
        CheckpointError: The file was damaged.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    advice = "restore it from a copy, or remove it and go on with --resume from the last checkpoint"
    try:
        return StageResult(**read_json(file, advice=advice))
    except TypeError as error:
        raise CheckpointError(f"{file} does not hold how a stage ended; {advice}") from error


def _hand_on(workshop: Workshop, directory: RunDirectory) -> None:
    """Write `final/`: the learnt weights, the tokenizer and the template, so that use equals training.

    A language model on its own is also written as a Hugging Face folder, `final/language`, for other recipes to name;
    low-rank updates are merged there, and written apart as a PEFT folder, `final/lora`.
    """
    if directory.final.is_dir():
        return
    unfinished = directory.path / "final.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    last = directory.stage(workshop.recipe.training[-1].name)
    save_weights(workshop.model, saved_parts(last), unfinished)
    tokenizer = workshop.tokenizer
    if tokenizer is not None:
        tokenizer.save_pretrained(unfinished)
    template = workshop.template
    if template is not None:
        (unfinished / TEMPLATE).write_text(template.to_json(), encoding="utf-8")
    update = workshop.model.parts().get("lora")
    if isinstance(update, LoraUpdate):
        update.save(unfinished / "lora")
    if isinstance(workshop.model, LanguageModelOnly):
        merge_lora(workshop.model.language.network)
        workshop.model.language.save_as_checkpoint(unfinished / "language")
        assert tokenizer is not None
        tokenizer.save_pretrained(unfinished / "language")
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
