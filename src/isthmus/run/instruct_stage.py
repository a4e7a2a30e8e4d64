"""Instruction data as a stage of a recipe: its language model writes what `isthmus curate instruct` would."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.build.workshop import open_workshop
from isthmus.config.instruct import InstructStage
from isthmus.config.instructions import FactOptions, PaceOptions
from isthmus.config.paths import data_path
from isthmus.config.recipe import Recipe
from isthmus.core.files import file_hash
from isthmus.core.options import RunOptions
from isthmus.run.curation_writers import writer_of
from isthmus.run.directory import RunDirectory, read_json, replace_json
from isthmus.run.instructions import InstructDirectory, NamedWriter, write_instructions
from isthmus.run.sitting import Sitting
from isthmus.run.weights import FILE, load_weights
from isthmus.training.launch import wait_for_all

RESULT = "result.json"


def write_data(
    recipe: Recipe, stage: InstructStage, directory: RunDirectory, sitting: Sitting
) -> dict[str, Any]:
    """Run the stage, or read its counts where an earlier sitting finished it; of several processes the first writes.

    Raises:
        UsageError: `facts` names something that holds none.
        DataError: The facts are damaged, or no reply could be kept.
        CheckpointError: The stage's folder was made with another model or other facts.
        Stopped: A signal came; replies that are there stay.
    """
    folder = directory.stage(stage.name)
    done = read_json(folder / RESULT)
    if done or not sitting.writes:
        wait_for_all(sitting.processes)
        return done
    there = InstructDirectory(folder)
    there.open(resume=sitting.resume)
    options = replace(sitting.options, seed=recipe.seed)
    counts = write_instructions(
        data_path(stage.facts),
        directory=there,
        about=FactOptions(
            instances=_path(stage.instances),
            split=stage.split,
            limit=stage.limit,
            kinds=",".join(stage.kinds),
            prompts=_path(stage.prompts),
        ),
        open_writer=lambda: _writer(recipe, stage, directory, options),
        pace=PaceOptions(),
        signals=contextlib.nullcontext(sitting.stop),
        options=options,
    )
    names = ("written", "kept", "dropped", "kinds", "reasons", "tokens", "seconds")
    trained = {"name": stage.name, "steps": 0, "loss": None, "trainable": 0}
    result = trained | {name: counts[name] for name in names}
    replace_json(folder / RESULT, result)
    wait_for_all(sitting.processes)
    return result


def _writer(
    recipe: Recipe, stage: InstructStage, directory: RunDirectory, options: RunOptions
) -> NamedWriter:
    """The stage's model, as the stage that trained it last left it, or as it was published."""
    alone, trained = recipe.alone(stage.model), recipe.stage_before(recipe.stages.index(stage))
    workshop = open_workshop(alone, options, tokenizer_folder=directory.tokenizer(stage.model))
    learnt = ""
    if trained is not None:
        load_weights(workshop.model, directory.stage(trained.name))
        learnt = f", {trained.name} {file_hash(directory.stage(trained.name) / FILE)[:16]}"
    workshop.model.eval().requires_grad_(requires_grad=False)
    writer = writer_of(
        workshop.model,
        workshop.processor,
        whose=f"stage {stage.name}",
        temperature=stage.temperature,
        max_tokens=stage.max_tokens,
        seed=recipe.seed,
    )
    drawn = f"temperature {stage.temperature:g}, at most {stage.max_tokens} tokens"
    return NamedWriter(writer=writer, name=f"{recipe.name}{learnt}, {drawn}")


def _path(named: str | None) -> Path | None:
    return None if named is None else Path(data_path(named))
