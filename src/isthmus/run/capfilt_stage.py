"""CapFilt as a stage of a recipe: what earlier stages trained captions and filters a source for stages after it."""

import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.build.sources import build_source
from isthmus.build.workshop import open_workshop
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.data import ShardSource, Source
from isthmus.config.recipe import Recipe
from isthmus.core.errors import Stopped
from isthmus.core.files import file_hash
from isthmus.curation.capfilt.folder import CapfiltFolder, Share, pairs_in
from isthmus.run.capfilt import Curation, finish
from isthmus.run.directory import RunDirectory, read_json, replace_json
from isthmus.run.load import LoadedRun
from isthmus.run.sitting import Sitting
from isthmus.run.weights import FILE, load_weights
from isthmus.training.launch import first_alone, wait_for_all
from isthmus.training.signals import StopAsked

RESULT = "result.json"


def made_source(directory: RunDirectory, stage: CapfiltStage) -> Source:
    """What a stage makes, as stages after it read it."""
    return ShardSource(files=pairs_in(directory.stage(stage.name)))


def rehearsed(recipe: Recipe) -> Recipe:
    """The recipe with the sources that are filtered in the place of those that will be made of them."""
    for stage in recipe.stages:
        if isinstance(stage, CapfiltStage):
            recipe = recipe.with_data({stage.makes: recipe.data[stage.data]})
    return recipe


def filter_captions(
    recipe: Recipe, stage: CapfiltStage, directory: RunDirectory, sitting: Sitting
) -> dict[str, Any]:
    """Run the stage, or read its counts where an earlier sitting finished it; several processes share its blocks.

    Raises:
        CheckpointError: The stage's folder was made with other models or settings.
        DataError: No caption was kept.
        Stopped: A signal came; blocks that are done stay.
    """
    started, path = time.monotonic(), directory.stage(stage.name)
    done = read_json(path / RESULT)
    if done:
        return done
    source = build_source(recipe.data[stage.data], recipe.data)
    judge = trained_by(recipe, stage.filter, directory, sitting)
    captioner = None
    if stage.captioner is not None and stage.num_captions:
        is_same = stage.captioner == stage.filter
        captioner = judge if is_same else trained_by(recipe, stage.captioner, directory, sitting)
    curation = Curation(captioner=captioner, judge=judge, filtering=stage, seed=recipe.seed)
    curation.check()
    settings = {"stage": stage.name, **_weights(directory, stage), **curation.settings}
    folder = CapfiltFolder(path, curation.plan.num_blocks(len(source)))
    share = Share(sitting.processes.rank + 1, sitting.processes.num)
    with first_alone(sitting.processes):
        for loaded in (captioner, judge):
            if loaded is not None:
                loaded.workshop.store_features([stage.data], sitting.stop)
    folder.open(settings, share=share, resume=sitting.resume)
    try:
        curation.run(source, folder, share=share, check=sitting.stop.check, options=sitting.options)
    except StopAsked:
        number = sitting.stop.received
        assert number is not None
        raise Stopped(
            number,
            f"stopped by {signal.Signals(number).name} in stage {stage.name}; blocks that are done are kept; go on "
            "with --resume",
        ) from None
    wait_for_all(sitting.processes)
    if not sitting.writes:
        return {}
    counts = finish(
        folder, source, settings=settings, name=f"{recipe.name}: stage {stage.name}", started=started
    )
    result = _summary(stage, counts)
    replace_json(path / RESULT, result)
    return result


def trained_by(recipe: Recipe, name: str, directory: RunDirectory, sitting: Sitting) -> LoadedRun:
    """The model as one of the recipe's stages left it."""
    stage = next(one for one in recipe.training if one.name == name)
    workshop = open_workshop(
        recipe.alone(stage.model), sitting.options, tokenizer_folder=directory.tokenizer(stage.model)
    )
    load_weights(workshop.model, directory.stage(name))
    workshop.model.eval().requires_grad_(requires_grad=False)
    return LoadedRun(directory, workshop, sitting.options)


def _weights(directory: RunDirectory, stage: CapfiltStage) -> dict[str, str | None]:
    """What wrote and filtered, by the weights that it had."""
    names: Mapping[str, str | None] = {"captioner": stage.captioner, "filter": stage.filter}
    return {
        key: None if name is None else f"{name} {file_hash(directory.stage(name) / FILE)[:16]}"
        for key, name in names.items()
    }


def _summary(stage: CapfiltStage, counts: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's entry among those that train."""
    names: Sequence[str] = (
        "written",
        "kept",
        "dropped",
        "pictures",
        "unusable_pictures",
        "by_origin",
        "seconds",
    )
    trained = {"name": stage.name, "steps": 0, "loss": None, "trainable": 0}
    return trained | {name: counts[name] for name in names}
