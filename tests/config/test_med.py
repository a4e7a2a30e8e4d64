"""What a recipe may say of BLIP, and how mistakes are told."""

import pytest

from isthmus.config.capfilt import CapfiltStage
from isthmus.config.load import load_recipe, parse_recipe
from isthmus.config.med import Med
from isthmus.core.errors import RecipeError

BLIP = """\
name: blip
data: {train: {kind: scenes, split: train, num_samples: 60}}
model:
  kind: med
  vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2, features: all}
  text: {tokenizer: {kind: trained, data: train, vocabulary: 300}, context: 30, width: 16, layers: 2, heads: 2}
  momentum: {queue: 32}
stages:
  - {kind: train, name: pretrain, train: [text, encoder, decoder, heads], data: train, rows: captions, steps: 4,
     batch_size: 8, objective: {contrastive: 1.0}, optimizer: {lr: 1.0e-3}}
evaluation: {task: retrieval, val: train, test: train, rerank: 4}
"""


def test_the_recipe_says_what_the_paper_says() -> None:
    recipe = load_recipe("blip")
    model, stage = recipe.final_model, recipe.training[-1]
    assert isinstance(model, Med)
    assert model.momentum is not None
    assert (model.momentum.decay, model.momentum.queue, model.momentum.soft) == (0.995, 57_600, 0.4)
    assert model.momentum.ramp_fraction * (stage.epochs or 0) == 2
    assert model.momentum.queue % stage.batch_size == 0
    assert stage.objective == {"contrastive": 1.0, "matching": 1.0, "captioning": 1.0}
    assert stage.label_smoothing == 0.1
    assert recipe.training[0] == stage.model_copy(
        update={"name": "pretrain", "model": "pretrained", "data": "train"}
    )
    (capfilt,) = (one for one in recipe.stages if isinstance(one, CapfiltStage))
    assert (capfilt.num_captions, capfilt.bound, capfilt.top_p) == (1, 0.5, 0.9)
    assert stage.data == capfilt.makes


@pytest.mark.parametrize(
    ("found", "instead", "said"),
    [
        (
            ", heads: 2}\n  momentum",
            ", heads: 3}\n  momentum",
            "text.heads: found 3, allowed: a number that divides",
        ),
        ("context: 30", "context: 600", "text.positions: found 512, allowed: a number from context = 600 on"),
        (", features: all", "", "model.pool: found 'first', allowed: mean, because without CLS"),
        (
            "batch_size: 8",
            "batch_size: 8, micro_batch_size: 4",
            "micro_batch_size: found 4, allowed: null, because model.momentum compares the whole batch",
        ),
        (
            "contrastive: 1.0",
            "next_token: 1.0",
            "found 'next_token', allowed: contrastive, matching, captioning",
        ),
        ("train: [text", "train: [language", "found 'language', allowed: parts of this med: vision, text"),
        (
            "task: retrieval",
            "task: captioning",
            "evaluation.rerank: found 4, allowed: null, because only retrieval",
        ),
        ("queue: 32", "decay: 1.0", "model.momentum.decay: found 1.0, allowed: a number below 1"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(found: str, instead: str, said: str) -> None:
    parse_recipe(BLIP, "test")
    assert found in BLIP
    with pytest.raises(RecipeError) as caught:
        parse_recipe(BLIP.replace(found, instead, 1), "test")
    assert said in str(caught.value)
