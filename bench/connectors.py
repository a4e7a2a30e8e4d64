"""Connectors and ways in, side by side on the built-in world: equal steps, rows and learning rates, several seeds.

Two questions, one table. Which way in: the three ablations of CLIP + GPT-2 (a mapping network whose tokens are spliced
into the text, a resampler read through gated cross-attention, or both), with the language model frozen. Which
connector: six of them, all spliced, with LoRA in the second stage. A run that is finished is not made again, one that
was stopped goes on.
"""

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import final

import connectors_page
import torch
from connectors_page import LORA_RATE, STRIP_RATE, Outcome

from isthmus.build.sources import build_source
from isthmus.config.load import load_recipe, recipe_hash
from isthmus.config.model import VisionLanguageModel
from isthmus.config.recipe import Recipe
from isthmus.core.errors import IsthmusError
from isthmus.core.options import RunOptions
from isthmus.run.directory import RunDirectory
from isthmus.run.evaluate import evaluate
from isthmus.run.show import describe
from isthmus.run.train import train

RECIPE = "tiny/visual_text_model"
"""What every arm is a change of."""
STEPS = (100, 400)
"""Of the two stages, 32 rows each."""
CONNECTORS = {
    "linear": "{kind: linear}",
    "mlp": "{kind: mlp, depth: 2}",
    "mapping_mlp": "{kind: mapping_mlp, prefix: 16}",
    "perceiver_resampler": "{kind: perceiver_resampler, latents: 16, layers: 2, heads: 4, head_dim: 32}",
    "latent_transformer": "{kind: latent_transformer, latents: 16, layers: 2, heads: 4}",
    "pixel_shuffle": "{kind: pixel_shuffle, factor: 2}",
}

LORA = "{rank: 16, alpha: 32, targets: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}"


@final
@dataclass(frozen=True)
class Arm:
    """One row of the table: what it is called, what learns, and what is changed in the shipped recipe."""

    name: str
    learns: str
    changes: tuple[str, ...]

    def recipe_for(self, seed: int, steps: tuple[int, int]) -> Recipe:
        """The recipe of one run."""
        budget = [
            f"stages.{stage}.{setting}"
            for stage, count in zip(("align", "instruct"), steps, strict=True)
            for setting in (
                f"steps={count}",
                f"optimizer.lr={STRIP_RATE}",
                "validation=null",
                "checkpoint_every=100",
            )
        ]
        name = f"name=connectors-{self.name.replace('_', '-')}"
        return load_recipe(RECIPE, [*self.changes, *budget, name, f"seed={seed}"])


def arms() -> tuple[Arm, ...]:
    """The three ablations, then the six connectors."""
    return (*_ways(), *_spliced())


def _ways() -> tuple[Arm, ...]:
    """Each of the recipe's two ways in alone, and both."""
    model = load_recipe(RECIPE).model
    assert isinstance(model, VisionLanguageModel)
    mapper, resampler = (model.ways[name].model_dump(mode="json") for name in ("mapper", "resampler"))
    # Alone, cross-attention takes a marker's place for each picture if not told otherwise; with both ways it has none.
    resampler["fusion"]["marker"] = "none"
    alone = (("mapper_only", mapper, "connector"), ("resampler_only", resampler, "connector, fusion"))
    return (
        *[
            Arm(
                name,
                parts,
                (
                    "model.paths={}",
                    *[f"model.{key}={json.dumps(value)}" for key, value in way.items()],
                    *[f"stages.{stage}.train=[{parts}]" for stage in ("align", "instruct")],
                ),
            )
            for name, way, parts in alone
        ],
        Arm("both_ways", "both connectors, fusion", ()),
    )


def _spliced() -> tuple[Arm, ...]:
    """One way in, spliced, through each connector; the language model bends by LoRA in the second stage."""
    changes = (
        # As when the runs of docs/results/connectors.json were made, whose hashes hold it.
        "paper=[https://arxiv.org/abs/2309.16058]",
        "model.paths={}",
        "model.fusion={kind: splice, placeholder: virtual}",
        "model.vision.features=patches",
        f"model.language.lora={LORA}",
        f"stages.instruct.optimizer.lr_by_part={{lora: {LORA_RATE}}}",
        "stages.align.train=[connector]",
        "stages.instruct.train=[connector, lora]",
    )
    return tuple(
        Arm(name, "connector, LoRA", (*changes, f"model.connector={connector}"))
        for name, connector in CONNECTORS.items()
    )


def main() -> int:
    """Train what is not trained yet, judge it, and write the page; the exit code is of the documented kind."""
    given = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(given.threads)
    chosen = [arm for arm in arms() if given.only is None or arm.name in given.only]
    steps = (given.steps[0], given.steps[1])
    try:
        outcomes = [
            _outcome(arm, seed, given.runs / f"{arm.name}-{seed}", steps=steps, limit=given.limit)
            for seed in given.seeds
            for arm in chosen
        ]
    except IsthmusError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = connectors_page.page_of(outcomes, steps)
    if given.only is None:
        page.write("connectors", connectors_page.data_of(outcomes, steps))
    else:
        print(page.text())
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare connectors and write docs/results/connectors.md.")
    parser.add_argument("--runs", type=Path, default=Path("runs/connectors"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs=2, default=STEPS, help="of the two stages")
    parser.add_argument("--limit", type=int, default=None, help="most test questions; all by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    names = [arm.name for arm in arms()]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=None, help="some arms; the page is printed, not written"
    )
    return parser.parse_args()


def _outcome(arm: Arm, seed: int, out: Path, *, steps: tuple[int, int], limit: int | None) -> Outcome:
    """Train and judge, or read what an earlier call found."""
    recipe, directory, options = arm.recipe_for(seed, steps), RunDirectory(out), RunOptions()
    found = directory.read_results().get("evaluation", {}).get("test", {"n": 0})
    num_questions = len(build_source(recipe.data["test"], recipe.data)[:limit])
    if directory.recipe_hash != recipe_hash(recipe) or found["n"] != num_questions:
        logging.info("%s, seed %d", arm.name, seed)
        train(recipe, out=out, resume=directory.recipe_file.is_file(), options=options)
        found = evaluate(out, split="test", limit=limit, options=options)
    stages = directory.read_results()["stages"]
    tokens = describe(recipe)["visual_tokens"]
    assert isinstance(tokens, int)
    return Outcome(
        arm=arm.name,
        learns=arm.learns,
        origin=(RECIPE, *arm.changes),
        seed=seed,
        recipe_hash=directory.recipe_hash,
        trainable=tuple(stage["trainable"] for stage in stages),
        visual_tokens=tokens,
        seconds=sum(stage["seconds"] for stage in stages),
        found={key: value for key, value in found.items() if key != "examples"},
    )


if __name__ == "__main__":
    sys.exit(main())
