"""What a recipe may say of a Q-Former, its first stage and encoder-decoder language models, and how mistakes are told."""

import pytest

from isthmus.config.load import load_recipe, parse_recipe
from isthmus.core.errors import RecipeError

FIRST = """\
name: first
data: {train: {kind: scenes, split: train, num_samples: 60}}
model:
  kind: qformer_pretrainer
  vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2}
  connector: {kind: qformer, queries: 4, width: 16, layers: 2, heads: 2, ffn: 24}
  text: {tokenizer: {kind: trained, data: train, vocabulary: 300}, context: 32}
stages:
  - {kind: train, name: represent, train: [connector, heads], data: train, rows: captions, steps: 4, batch_size: 8,
     objective: {contrastive: 1.0, matching: 1.0, captioning: 1.0}, optimizer: {lr: 1.0e-3}}
"""
SECOND = """\
name: second
data: {train: {kind: scenes, split: train, num_samples: 60}}
model:
  kind: vision_language_model
  vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2}
  connector: {kind: qformer, queries: 4, width: 16, layers: 2, heads: 2, ffn: 24}
  language: {kind: encoder_decoder, name: google/flan-t5-xl, context: 64}
stages:
  - {kind: train, name: generate, train: [connector], data: train, rows: captions, steps: 4, batch_size: 8,
     objective: {next_token: 1.0}, optimizer: {lr: 1.0e-3}}
"""


def test_the_recipes_say_what_the_paper_says() -> None:
    recipe = load_recipe("blip2")
    first, second = recipe.stages
    assert (first.name, second.name, recipe.final_name) == ("represent", "generate", "generate")
    assert (first.objective, first.label_smoothing) == (
        {"contrastive": 1.0, "matching": 1.0, "captioning": 1.0},
        0.1,
    )
    assert (second.start_from, second.drop, second.fresh) == (
        "represent",
        ("connector.text", "heads"),
        ("connector.projection",),
    )
    for name in ("blip2", "blip2_flan_t5", "tiny/blip2"):
        vision = {
            str(model.vision) for model in load_recipe(name).models.values() if model.kind != "language_model"
        }
        assert len(vision) == 1


@pytest.mark.parametrize(
    ("recipe", "found", "instead", "said"),
    [
        (
            FIRST,
            "heads: 2, ffn: 24",
            "heads: 3, ffn: 24",
            "model.connector.heads: found 3, allowed: a number that divides width = 16",
        ),
        (
            FIRST,
            "context: 32}",
            "context: 600}",
            "model.text.positions: found 512, allowed: a number from context = 600 on",
        ),
        (
            FIRST,
            "captioning: 1.0",
            "next_token: 1.0",
            "found 'next_token', allowed: contrastive, matching, captioning",
        ),
        (FIRST, "rows: captions", "rows: questions", "found 'questions', allowed: captions"),
        (
            FIRST,
            "batch_size: 8",
            "batch_size: 8, micro_batch_size: 4",
            "micro_batch_size: found 4, allowed: null",
        ),
        (
            FIRST,
            "train: [connector, heads]",
            "train: [connector, text]",
            "found 'text', allowed: parts of this qformer_pretrainer: vision, connector, heads",
        ),
        (
            FIRST,
            "rows: captions",
            "rows: captions, template: plain",
            "a qformer_pretrainer reads no text with a chat template",
        ),
        (SECOND, "next_token: 1.0", "matching: 1.0", "found 'matching', allowed: next_token"),
        (
            SECOND,
            "context: 64}",
            "context: 64}\n  fusion: {kind: cross_attention}",
            "model.language.kind: found 'encoder_decoder', allowed: a causal language model",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(
    recipe: str, found: str, instead: str, said: str
) -> None:
    parse_recipe(recipe, "test")
    assert found in recipe
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe.replace(found, instead, 1), "test")
    assert said in str(caught.value)
