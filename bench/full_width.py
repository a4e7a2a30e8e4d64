"""Ten training steps at full width on a processor: what two published designs need of memory and time.

Weights are random, because no published ones come with the repository; memory and time do not depend on them.
Each model is made in one process and trained in another, by the recipe and the commands of everyday use, so that its
peak memory is its own: loading, features of photos encoded live, losses, optimizer and the checkpoint at the end.
"""

import argparse
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, final

import torch
from results import Page
from transformers import AutoModel, AutoModelForCausalLM

from isthmus.build.names import card_file
from isthmus.config.load import load_recipe
from isthmus.config.paths import expand
from isthmus.config.recipe import Recipe
from isthmus.core.options import RunOptions
from isthmus.data.sources.shards import Shards
from isthmus.data.vocabulary import Tokenizer, load_tokenizer, train_tokenizer
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network
from isthmus.run.demo import peak_memory_bytes
from isthmus.run.directory import RunDirectory
from isthmus.run.show import describe
from isthmus.run.train import train

PHOTOS = "{kind: shards, files: '${shared}/data/flickr8k/train-*.tar'}"
TOKENIZER = "${shared}/models/tokenizers/gpt2"
VOCABULARY = 8000
"""Of the tokenizer that stands in where the model's own is not at hand."""
CLIP_PICTURES = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIGLIP_PICTURES = {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@final
@dataclass(frozen=True)
class Case:
    """One model: the recipe it follows and what replaces the parts and data that are not here.

    Attributes:
        title: How the page calls it.
        recipe: A shipped recipe.
        vision: Hub name of the encoder, whose card gives the architecture.
        language: Hub name of the language model.
        own_tokenizer: Whether the language model's own tokenizer is at hand.
        pictures: How pictures are prepared, as the encoder's preprocessor file says.
        changes: What differs from the recipe besides names and data.
    """

    title: str
    recipe: str
    vision: str
    language: str
    own_tokenizer: bool
    pictures: dict[str, Any]
    changes: tuple[str, ...]

    def recipe_in(self, folder: Path, steps: int) -> Recipe:
        """The recipe on the parts in a folder."""
        plain = load_recipe(self.recipe)
        budget = [
            f"stages.{stage.name}.{setting}"
            for stage in plain.stages
            for setting in (f"steps={steps}", "validation=null", "rows=captions", f"checkpoint_every={steps}")
        ]
        parts = [f"model.{part}.name={folder / part}" for part in ("vision", "language")]
        photos = [f"data.{name}={PHOTOS}" for name in plain.data]
        return load_recipe(
            self.recipe, [*parts, *photos, *budget, *self.changes, "evaluation=null", "features=null"]
        )


CASES = {
    "visual_text_model": Case(
        "CLIP B/32 + GPT-2, two ways in",
        "visual_text_model",
        "openai/clip-vit-base-patch32",
        "openai-community/gpt2",
        own_tokenizer=True,
        pictures=CLIP_PICTURES,
        changes=(),
    ),
    "siglip_llama": Case(
        "SigLIP B/16 + a LLaMA of 135M, spliced",
        "siglip_gemma",
        "google/siglip-base-patch16-224",
        "HuggingFaceTB/SmolLM2-135M",
        own_tokenizer=False,
        pictures=SIGLIP_PICTURES,
        changes=(
            "model.language.template=plain",
            "model.language.context=320",
            *[
                f"stages.{stage}.{size}"
                for stage in ("align", "instruct")
                for size in ("batch_size=8", "micro_batch_size=4")
            ],
        ),
    ),
}


def main() -> int:
    """Make or train one model in this process, or all in their own and write the page."""
    parser = argparse.ArgumentParser(
        description="Measure training at full width; writes docs/results/full_width.md."
    )
    parser.add_argument("--steps", type=int, default=10, help="of each stage")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--only", choices=CASES, default=None, help="one model; the page is printed, not written"
    )
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--do", choices=("make", "train"), default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.do == "make":
        _make(CASES[given.only], given.folder)
        return 0
    if given.do == "train":
        print(json.dumps(_train(CASES[given.only], given.folder, given.steps)))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    names = list(CASES) if given.only is None else [given.only]
    found = {name: _in_processes(name, given.steps, given.threads) for name in names}
    page = _page(found, given.steps, given.threads)
    if given.only is None:
        page.write("full_width", {"steps": given.steps, "threads": given.threads, "models": found})
    else:
        print(page.text())
    return 0


def _in_processes(name: str, steps: int, threads: int) -> dict[str, Any]:
    """What one model needs. This process stays small: a child's peak memory counts from its parent's."""
    with tempfile.TemporaryDirectory() as folder:
        said = ""
        for step in ("make", "train"):
            logging.info("%s: %s", name, step)
            options = [f"--do={step}", f"--only={name}", f"--folder={folder}", f"--steps={steps}"]
            command = [sys.executable, __file__, *options, f"--threads={threads}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{name}: {step} failed:\n{done.stderr}")
            said = done.stdout.splitlines()[-1] if done.stdout else ""
        return json.loads(said)


def _make(case: Case, folder: Path) -> None:
    """Folders as Hugging Face has them, with random weights."""
    torch.manual_seed(0)
    vision, language = (
        PretrainedSource(name=name, random=True, card=card_file(name))
        for name in (case.vision, case.language)
    )
    load_network(AutoModel, vision, config=load_configuration(vision).vision_config).save_pretrained(
        folder / "vision"
    )
    (folder / "vision" / "preprocessor_config.json").write_text(
        json.dumps(case.pictures | {"resample": 3}), encoding="utf-8"
    )
    load_network(AutoModelForCausalLM, language).save_pretrained(folder / "language")
    _tokenizer(case).save_pretrained(folder / "language")


def _tokenizer(case: Case) -> Tokenizer:
    if case.own_tokenizer:
        return load_tokenizer(expand(TOKENIZER))
    photos = Shards(expand("${shared}/data/flickr8k/train-*.tar"))
    captions = (caption for sample in photos for caption in sample.captions)
    return train_tokenizer(captions, algorithm="bpe", vocabulary=VOCABULARY, lower=False)


def _train(case: Case, folder: Path, steps: int) -> dict[str, Any]:
    """Run the recipe as `isthmus train` does."""
    recipe, directory = case.recipe_in(folder, steps), RunDirectory(folder / "run")
    said: Any = describe(recipe)
    train(recipe, out=directory.path, options=RunOptions(precision="fp32", json=True))
    stages = []
    for stage, counted in zip(recipe.stages, said["stages"], strict=True):
        lines = (directory.stage(stage.name) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        clock = [0.0, *[record["seconds"] for record in records]]
        report = json.loads((directory.stage(stage.name) / "data.json").read_text(encoding="utf-8"))
        stages.append(
            {key: counted[key] for key in ("name", "trainable", "frozen", "parts")}
            | {
                "rows": stage.batch_size,
                "tokens_per_row": report["num_tokens"] / report["rows"],
                "losses": [record["loss"] for record in records],
                "seconds": [after - before for before, after in pairwise(clock)],
            }
        )
    return {
        "title": case.title,
        "parameters": said["total"],
        "visual_tokens": said["visual_tokens"],
        "peak_memory_bytes": peak_memory_bytes(),
        "stages": stages,
    }


def _page(found: dict[str, dict[str, Any]], steps: int, threads: int) -> Page:
    page = Page("Full width on a processor: ten steps with random weights", "python bench/full_width.py")
    page.say(
        f"Photos and captions of Flickr8k's training split, {steps} steps a stage, fp32, {threads} thread(s), photos",
        "encoded live. Peak memory is that of the whole process, loading and checkpoint included; seconds a step are",
        "the median of all steps but the first.",
    )
    page.table(
        [
            "model",
            "parameters",
            "stage trains",
            "trained",
            "rows a step",
            "tokens a row",
            "s a step",
            "first loss",
            "last loss",
            "peak memory, GB",
        ],
        [
            [
                model["title"],
                f"{model['parameters']:,}",
                ", ".join(stage["parts"]),
                f"{stage['trainable']:,}",
                str(stage["rows"]),
                f"{stage['tokens_per_row']:.0f}",
                f"{median(stage['seconds'][1:] or stage['seconds']):.1f}",
                f"{stage['losses'][0]:.2f}",
                f"{stage['losses'][-1]:.2f}",
                f"{model['peak_memory_bytes'] / 1e9:.1f}",
            ]
            for model in found.values()
            for stage in model["stages"]
        ],
    )
    page.say(
        f"A model that knows nothing has a loss of about ln(50,257) = {math.log(50_257):.2f} (GPT-2's vocabulary) and",
        f"ln(49,152) = {math.log(49_152):.2f} (the LLaMA's). The LLaMA has SmolLM2-135M's shape; its tokenizer is not",
        f"in the shared folder, so one of {VOCABULARY:,} byte pairs made from the captions stands in. SigLIP is read",
        "as in `siglip_gemma`: without its last norm and its head.",
    )
    return page


if __name__ == "__main__":
    sys.exit(main())
