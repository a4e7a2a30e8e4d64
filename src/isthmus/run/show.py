"""`isthmus show`: the parameter table of a recipe or a run, without weights and without the network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import assert_never, cast

import torch

from isthmus.build.model import build_model
from isthmus.build.published import published_form
from isthmus.build.stages import frozen_inside
from isthmus.build.text import template_of
from isthmus.build.workshop import stage_templates
from isthmus.config.capfilt import CapfiltStage
from isthmus.config.instruct import InstructStage
from isthmus.config.load import recipe_of
from isthmus.config.med import Med
from isthmus.config.model import (
    Classifier,
    DualEncoder,
    LanguageModel,
    MaskedImageModel,
    Model,
    VisionLanguageModel,
    VisualTokenizer,
)
from isthmus.config.qformer import QFormerPretrainer
from isthmus.config.recipe import Recipe
from isthmus.config.stages import Stage, TrainStage
from isthmus.core.errors import UsageError
from isthmus.core.sizes import Size
from isthmus.core.tiling import Cut, best_grid
from isthmus.data.vocabulary import Tokenizer, load_tokenizer
from isthmus.inspection.parameters import InnerRow, PartRow, part_rows, stage_split
from isthmus.models.model import Model as BuiltModel
from isthmus.models.vision_language_model import VisionLanguageModel as VisionLanguageModelModule
from isthmus.nn.pooling import square_side
from isthmus.run.directory import RunDirectory


def show(
    target: str,
    overrides: Sequence[str] = (),
    *,
    image_size: Size | None = None,
    network_allowed: bool = False,
) -> dict[str, object]:
    """The table as plain data (design, section 7).

    Args:
        target: A recipe's path or shipped name, or a run directory.
        overrides: Changes of a recipe, as `train` takes them.
        image_size: Count visual tokens for pictures of this size; None takes the encoder's own.
        network_allowed: The configuration of a hub model without a card may be fetched.

    Raises:
        RecipeError: There is no such recipe, or its parts do not fit.
        UsageError: The model cannot take pictures of this size, or a run is to be changed.
        MachineError: The architecture of a hub model is not known here.
    """
    run, recipe = RunDirectory(Path(target)), recipe_of(target, overrides)
    tables: dict[str | None, dict[str, object]] = {}
    for name in recipe.named_models:
        folder = run.tokenizer(name)
        is_trained = run.recipe_file.is_file() and (folder / "tokenizer.json").is_file()
        tables[name] = describe(
            recipe.alone(name),
            image_size=image_size,
            # A tokenizer that was trained for a run may have found fewer words than its recipe allows.
            tokenizer=load_tokenizer(str(folder)) if is_trained else None,
            network_allowed=network_allowed,
        )
    final = tables[recipe.final_name]
    if recipe.model is not None:
        of_model = {stage["name"]: stage for stage in _stages(final)}
        return final | {"stages": [of_model.get(stage.name) or making_data(stage) for stage in recipe.stages]}
    stages = {
        stage["name"]: stage | {"model": name} for name, table in tables.items() for stage in _stages(table)
    }
    counts = {
        name: {key: table[key] for key in ("parts", "total", "published_total", "visual_tokens")}
        for name, table in tables.items()
    }
    return final | {
        "stages": [stages.get(stage.name) or making_data(stage) for stage in recipe.stages],
        "final": recipe.final_name,
        "models": counts,
    }


def _stages(table: Mapping[str, object]) -> list[dict[str, object]]:
    return cast(list[dict[str, object]], table["stages"])


def making_data(stage: Stage) -> dict[str, object]:
    """A stage that makes data and trains nothing."""
    nothing: dict[str, object] = {"trainable": 0, "frozen": 0, "parts": [], "freeze": []}
    row: dict[str, object] = {"name": stage.name, "model": stage.model} | nothing
    match stage:
        case CapfiltStage():
            named = {key: getattr(stage, key) for key in ("kind", "captioner", "filter", "data", "makes")}
            kept = {"captions": stage.num_captions, "threshold": stage.bound, "best": stage.num_best}
            return row | named | kept
        case InstructStage():
            return row | {"kind": stage.kind, "facts": stage.facts, "kinds": list(stage.kinds)}
        case TrainStage():
            raise AssertionError(f"{stage.name} trains")
        case _:
            assert_never(stage)


def describe(
    recipe: Recipe,
    *,
    image_size: Size | None = None,
    tokenizer: Tokenizer | None = None,
    network_allowed: bool = False,
) -> dict[str, object]:
    """The parameter table of a recipe with one model, built on the meta device.

    Args:
        recipe: What is built; of a recipe with several models, what `Recipe.alone` gives for one of them.
        image_size: Count visual tokens for pictures of this size; None takes the encoder's own.
        tokenizer: The trained tokenizer, whose entries are counted; None takes the most that the recipe allows.
        network_allowed: The configuration of a hub model without a card may be fetched.

    Raises:
        RecipeError: Its parts do not fit.
        UsageError: The model cannot take pictures of this size.
        MachineError: The architecture of a hub model is not known here.
    """

    def counted(config: Model) -> tuple[BuiltModel, tuple[PartRow, ...]]:
        model = build_model(
            config,
            weights="random",
            device="meta",
            tokenizer=tokenizer,
            network_allowed=network_allowed,
        )
        return model, _with_blocks(part_rows(model, kinds_of(config)))

    stage_templates(recipe)
    if isinstance(recipe.final_model, VisionLanguageModel | LanguageModel):
        template_of(recipe.final_model)
    model, rows = counted(recipe.final_model)
    whole = published_form(recipe.final_model)
    published = rows if whole == recipe.final_model else counted(whole)[1]
    stages = []
    for stage in recipe.training:
        trainable, frozen = stage_split(rows, stage.train, frozen=frozen_inside(stage, model))
        stages.append(
            {
                "name": stage.name,
                "trainable": trainable,
                "frozen": frozen,
                "parts": list(stage.train),
                "freeze": list(stage.freeze),
            }
        )
    return {
        "recipe": recipe.name,
        "parts": _rows_as_data(rows, published),
        "total": sum(row.parameters for row in rows),
        "published_total": sum(row.parameters for row in published),
        "stages": stages,
        "visual_tokens": _visual_tokens(recipe.final_model, model, image_size),
    }


def _with_blocks(rows: tuple[PartRow, ...]) -> tuple[PartRow, ...]:
    """Say inside `language` how large it is with the blocks that act between its layers, which count as `fusion`."""
    blocks = next((row.parameters for row in rows if row.name == "fusion"), None)
    if blocks is None:
        return rows
    return tuple(
        replace(
            row,
            inside=(
                *row.inside,
                InnerRow(
                    name="with fusion",
                    kind="language and fusion",
                    parameters=row.parameters + blocks,
                    tied=True,
                ),
            ),
        )
        if row.name == "language"
        else row
        for row in rows
    )


def _rows_as_data(
    rows: Sequence[PartRow | InnerRow], published: Sequence[PartRow | InnerRow]
) -> list[dict[str, object]]:
    """Rows with the published count of the row of the same name, if there is one."""
    counts = {row.name: row for row in published}
    listed: list[dict[str, object]] = []
    for row in rows:
        whole = counts.get(row.name)
        data: dict[str, object] = {
            "name": row.name,
            "kind": row.kind,
            "parameters": row.parameters,
            "published_parameters": None if whole is None else whole.parameters,
        }
        if isinstance(row, InnerRow):
            listed.append(data | ({"tied": True} if row.tied else {}))
        else:
            inside = whole.inside if isinstance(whole, PartRow) else ()
            listed.append(data | ({"parts": _rows_as_data(row.inside, inside)} if row.inside else {}))
    return listed


def _visual_tokens(config: Model, model: torch.nn.Module, image_size: Size | None) -> int | None:
    if not isinstance(model, VisionLanguageModelModule) or not isinstance(config, VisionLanguageModel):
        return None
    own = model.vision.image_size
    if config.tiles is not None:
        side = square_side(model.num_places(model.vision.num_tokens(own)))
        picture, grids = image_size or own, [Size(*grid) for grid in config.tiles.grids]
        cut = Cut(picture=picture, grid=best_grid(picture, tile=own, grids=grids))
        return cut.num_tokens(Size(height=side, width=side))
    if config.vision.resize == "none" and image_size not in (None, own):
        raise UsageError(
            f"--image-size: model.vision.resize is none, so that pictures have to be {own.width}x{own.height} already; "
            "choose resize squash, crop or pad"
        )
    # Whatever its size, a picture is brought to the encoder's own.
    return model.num_visual_tokens(model.vision.num_tokens(own))


def kinds_of(config: Model) -> dict[str, str]:
    """What kind each part of a model is, in a reader's words."""
    match config:
        case VisionLanguageModel():
            return {
                "vision": config.vision.kind,
                **{name: way.connector.kind for name, way in config.ways.items()},
                **({"fusion": config.attention[2].kind} if config.attention is not None else {}),
                "language": config.language.kind,
            }
        case DualEncoder():
            return {
                "vision": config.vision.kind,
                "image_head": config.image_head.pooling,
                "text": config.text.kind,
            }
        case MaskedImageModel():
            return {
                "vision": config.vision.kind,
                "predictor": config.predictor.kind,
                "tokenizer": "discrete VAE",
            }
        case VisualTokenizer():
            return {"tokenizer": "discrete VAE"}
        case Classifier():
            return {"vision": config.vision.kind, "head": config.pooling}
        case LanguageModel():
            return {"language": config.language.kind}
        case QFormerPretrainer():
            return {"vision": config.vision.kind, "connector": config.connector.kind}
        case Med():
            return {"vision": config.vision.kind, "text": "transformer"}
