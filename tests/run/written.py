"""Recipes, logs and results as a run writes them, made by hand."""

import json
from pathlib import Path
from typing import Any

from isthmus.config.load import parse_recipe
from isthmus.config.recipe import Recipe
from isthmus.run.directory import RunDirectory

SCENES = """\
name: small
seed: 7
data:
  train: {kind: scenes, split: train, num_samples: 40, image_size: 32}
  val: {kind: scenes, split: val, num_samples: 30, image_size: 32}
  test: {kind: scenes, split: test, num_samples: 30, image_size: 32}
"""
LANGUAGE = """\
model:
  kind: vision_language_model
  vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2}
  connector: {kind: linear}
  language:
    kind: llama
    tokenizer: {kind: trained, data: train, vocabulary: 300}
    width: 16
    layers: 1
    heads: 2
    ffn: 32
    context: 64
stages:
  - kind: train
    name: align
    train: [connector]
    objective: {next_token: 1.0}
    data: train
    rows: captions
    steps: 4
    batch_size: 8
    optimizer: {lr: 1e-3}
    validation: {data: val, every: 2}
  - kind: train
    name: together
    train: [connector, language]
    objective: {next_token: 1.0}
    data: train
    rows: questions
    steps: 4
    batch_size: 8
    optimizer: {lr: 1e-4}
"""
DUAL = """\
model:
  kind: dual_encoder
  vision: {kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2}
  image_head: {pooling: mean}
  text:
    {kind: transformer, tokenizer: {kind: trained, data: train, vocabulary: 300}, width: 16, layers: 1, heads: 2, context: 32}
  embed_dim: 8
stages:
  - kind: train
    name: contrast
    train: [vision, image_head, text, scale]
    objective: {contrastive: 1.0}
    data: train
    rows: captions
    steps: 4
    batch_size: 8
    optimizer: {lr: 1e-3}
    validation: {data: val, every: 2}
"""


def recipe_for(task: str) -> Recipe:
    model = DUAL if task == "retrieval" else LANGUAGE
    return parse_recipe(f"{SCENES}{model}evaluation: {{task: {task}, val: val, test: test}}\n", "a recipe")


def run_of(recipe: Recipe, path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.make()
    with directory.begun(recipe, resume=False):
        return directory


def log(directory: RunDirectory, stage: str, *records: dict[str, Any], end: str = "") -> None:
    directory.stage(stage).mkdir()
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (directory.stage(stage) / "metrics.jsonl").write_text(lines + end, encoding="utf-8")


def stage(name: str, trainable: int = 272, **more: Any) -> dict[str, Any]:
    row = {"name": name, "steps": 4, "loss": 1.25, "seconds": 61.0, "trainable": trainable}
    return row | {"stopped_early": False, "validation": {}} | more


def number(value: float, n: int = 30) -> dict[str, Any]:
    return {"value": value, "low": value - 0.03125, "high": value + 0.03125, "n": n}


def share(accuracy: float, n: int = 30) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": [accuracy - 0.0625, accuracy + 0.0625], "n": n}


def answered(real: float = 0.875, conclusion: str = "looks at the picture") -> dict[str, Any]:
    answers = {
        name: share(value)
        for name, value in zip(
            ("blank", "real", "shuffled", "wrong"), (0.25, real, 0.3125, 0.375), strict=True
        )
    }
    return {
        "task": "questions",
        "metrics": {"accuracy": answers["real"]},
        "controls": {
            "answers": answers,
            "verdict": f"answers right: {real:.0%} with the picture",
            "conclusion": conclusion,
            "best_control": "wrong",
            "margin": number(0.5) | {"p": 0.001},
            "best_picture_blind": 0.40625,
        },
        "kinds": {"colour": {name: share(0.5, 15) for name in answers}, "count": {name: share(0.75, 15) for name in answers}},
        "n": 30,
    }  # fmt: skip


ANSWERS = [
    {
        "row": row,
        "question": f"question {row}?",
        "answer": f"answer {row}",
        "blank_answer": "blank guess",
        "truth": f"truth {row}",
        "kind": "colour",
        "right": row not in (1, 2),
    }
    for row in range(30)
]
