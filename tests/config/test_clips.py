"""Recipes whose clips come to a model without places for their frames are refused when they are read."""

import pytest
from recipes import GOOD

from isthmus.config.load import load_recipe, parse_recipe
from isthmus.core.errors import RecipeError

CLIPS = GOOD.replace(
    '{kind: shards, files: "${shared}/train-*.tar"}', "{kind: clips, split: train, num_samples: 90}"
)
READER = CLIPS.replace("{kind: mlp, depth: 2}", "{kind: perceiver_resampler, frames: 3}")
LIVE = READER.replace("features: {store: true, dtype: float16}\n", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CLIPS, "stages.0.data: found 'train' with clips of 4 frames, allowed: a source that the model takes (no clips"),
        (READER, "stages.1.data: found 'train' with clips of 4 frames, allowed: a source that the model takes (clips of at "),
        (READER, "features: found a feature store, allowed: null, because the frames of clips are encoded live"),
        (
            LIVE.replace('{kind: shards, files: "${shared}/val-*.tar"}', "{kind: clips, split: val, num_samples: 9}"),
            "evaluation.test: found 'val' with clips of 4 frames",
        ),
    ],
)  # fmt: skip
def test_clips_need_a_resampler_with_frames(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_recipe(text, "clips.yaml")
    assert said in str(refused.value)


def test_clips_that_fit_are_taken() -> None:
    recipe = parse_recipe(LIVE.replace("frames: 3", "frames: 4"), "clips.yaml")
    assert recipe.model.max_frames == 4


@pytest.mark.parametrize(
    ("connector", "fusion", "most"),
    [
        ("{kind: mapping_mlp}", "splice", None),
        ("{kind: mapping_mlp}", "cross_attention", 0),
        ("{kind: mapping_transformer}", "splice", 0),
        ("{kind: linear}", "splice", 0),
    ],
)
def test_how_many_frames_a_connector_takes(connector: str, fusion: str, most: int | None) -> None:
    changes = [f"model.connector={connector}", f"model.fusion={{kind: {fusion}}}"]
    recipe = parse_recipe(GOOD, "clips.yaml", changes)
    assert recipe.model.max_frames == most


def test_the_visual_text_model_takes_as_many_frames_as_its_resampler() -> None:
    model = load_recipe("visual_text_model").model
    assert model.max_frames == 500
    assert model.has_tokens_of_frames
