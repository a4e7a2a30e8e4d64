"""A dry run: all models are built and one batch of each stage is read and encoded, nothing is trained or written."""

from typing import Any, cast

import torch

from isthmus.build.stages import frozen_inside, stage_settings, stream_options
from isthmus.build.workshop import Workshop, open_workshop
from isthmus.config.recipe import Recipe
from isthmus.config.stages import TrainStage
from isthmus.core.options import RunOptions
from isthmus.data.stream import BatchStream
from isthmus.run.capfilt_stage import rehearsed
from isthmus.run.progress import announce
from isthmus.run.show import describe
from isthmus.training.parameters import TrainableModule, set_trainable


def rehearse(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """Build everything and look at one batch of each stage."""
    stages: list[dict[str, Any]] = [
        {"name": stage.name, "steps": 0, "loss": None, "seconds": 0.0, "trainable": 0}
        for stage in recipe.stages
        if not isinstance(stage, TrainStage)
    ]
    recipe = rehearsed(recipe)
    for name in recipe.named_models:
        alone = recipe.alone(name)
        workshop = open_workshop(alone, options, tokenizer_folder=None)
        announce(describe(alone, tokenizer=workshop.tokenizer), options)
        stages += _rehearse_model(alone, workshop)
    order = [stage.name for stage in recipe.stages]
    return {"run": None, "stages": sorted(stages, key=lambda row: order.index(row["name"]))}


@torch.no_grad()
def _rehearse_model(recipe: Recipe, workshop: Workshop) -> list[dict[str, Any]]:
    rows = []
    for stage in recipe.training:
        model = cast(TrainableModule, workshop.model)
        split = set_trainable(model, stage.train, frozen=frozen_inside(stage, workshop.model))
        source, chosen = workshop.source(stage.data), stream_options(recipe, stage)
        with BatchStream(processor=workshop.processor_of(stage), source=source, options=chosen) as stream:
            batch = stream.micro_batches(0)[0]
            steps = stage_settings(recipe, stage, steps_per_epoch=stream.steps_per_epoch).num_steps
        encoded = workshop.model.encode(batch.to(next(workshop.model.parameters()).device))
        del encoded
        rows.append(
            {
                "name": stage.name,
                "steps": steps,
                "loss": None,
                "seconds": 0.0,
                "trainable": split.num_trainable,
            }
        )
    return rows
