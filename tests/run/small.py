"""Recipes that train in a second on drawn scenes, and one way to run the command line on them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from isthmus.cli.app import app
from isthmus.core.options import RunOptions
from isthmus.data.scenes import words
from isthmus.data.sources.scenes import SceneSource
from isthmus.data.vocabulary import train_tokenizer
from isthmus.training.metrics import Record

DATA = """\
data:
  train: {kind: scenes, split: train, num_samples: 60, image_size: 32}
  val: {kind: scenes, split: val, num_samples: 20, image_size: 32}
  test: {kind: scenes, split: test, num_samples: 24, image_size: 32}
"""
VISION = "{kind: vit, image_size: 32, patch: 8, width: 16, layers: 1, heads: 2}"
OWN = """\
{kind: llama, tokenizer: {kind: trained, data: train, algorithm: word, vocabulary: 200},
    width: 16, layers: 1, heads: 2, ffn: 32, context: 64}"""
QUESTIONS = "evaluation: {task: questions, val: val, test: test, decoding: {max_new_tokens: 3}}\n"
CAPTIONS = "evaluation: {task: captioning, val: val, test: test, decoding: {max_new_tokens: 12}}\n"


def stage(name: str, parts: str, rows: str, **changes: str) -> str:
    """One entry of `stages`, four steps of eight rows; objective `next_token` unless changed."""
    settings = {
        "objective": "{next_token: 1.0}",
        "data": "train",
        "steps": "4",
        "batch_size": "8",
        "optimizer": "{lr: 1e-2, warmup_fraction: 0.0}",
        "checkpoint_every": "1",
    } | changes
    listed = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return f"  - {{kind: train, name: {name}, train: [{parts}], rows: {rows}, {listed}}}\n"


VALIDATION = "{data: val, every: 2, limit: 10}"


def vision_language(
    language: str = OWN,
    *,
    stages: str | None = None,
    evaluation: str = QUESTIONS,
    data: str = DATA,
    more: str = "",
) -> str:
    """A ViT, an MLP, a language model: align the connector, then learn the language model (or its LoRA) too."""
    learnt = "lora" if "lora" in language else "language"
    stages = stages or stage("align", "connector", "captions", validation=VALIDATION) + stage(
        "instruct", f"connector, {learnt}", "questions", validation=VALIDATION
    )
    return (
        f"name: small\nseed: 3\n{data}model:\n  kind: vision_language_model\n  vision: {VISION}\n"
        f"  connector: {{kind: mlp, depth: 2}}\n  language: {language}\n{more}stages:\n{stages}{evaluation}"
    )


DUAL = (
    f"name: small-dual\n{DATA}model:\n  kind: dual_encoder\n  vision: {VISION}\n  image_head: {{pooling: mean}}\n"
    "  text: {kind: transformer, tokenizer: {kind: trained, data: train, algorithm: word, vocabulary: 200},\n"
    "    width: 16, layers: 1, heads: 2, context: 32}\n  embed_dim: 8\nstages:\n"
    + stage(
        "contrast",
        "vision, image_head, text, scale",
        "captions",
        objective="{contrastive: 1.0}",
        validation=VALIDATION,
    )
    + "evaluation: {task: retrieval, val: val, test: test}\n"
)
ALONE = f"name: small-alone\n{DATA}model:\n  kind: language_model\n  language: {OWN}\nstages:\n" + stage(
    "read", "language", "text", validation=VALIDATION
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """What was said at the end: one sentence of Isthmus, and no traceback."""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("isthmus: ")]
        assert len(lines) == 1, self.err
        assert "bug" not in lines[0], lines[0]
        return lines[0]


def isthmus(*arguments: str | Path) -> Outcome:
    """Run the command line in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def apart(*arguments: str | Path, code: str | None = None) -> subprocess.Popen:
    """Start the command line, or other code, in a process of its own."""
    start = ["-c", code] if code is not None else ["-m", "isthmus"]
    source = Path(__file__).parents[2] / "src"
    return subprocess.Popen(
        [sys.executable, *start, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def written(path: Path, text: str) -> Path:
    """Write a recipe."""
    path.write_text(text, encoding="utf-8")
    return path


def language_folder(folder: Path) -> Path:
    """A language model and its tokenizer as Hugging Face folders hold them, random."""
    tokenizer = train_tokenizer([" ".join(words())], algorithm="word", vocabulary=200, lower=True)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def picture(path: Path, *, index: int = 0) -> Path:
    """A drawn scene of the test split as a file."""
    scenes = SceneSource(split="test", num_samples=index + 1, image_size=32)
    scenes.sample(index).images[0].picture().save(path)
    return path


def final_hash(run: Path) -> str:
    """SHA-256 of every tensor that a run handed on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(run / "final" / "model.safetensors").items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


class Runs:
    """Finished runs of the recipes, each trained when it is first asked for."""

    def __init__(self, recipes: Path, folder: Path) -> None:
        self._recipes = recipes
        self._folder = folder
        self._made: dict[str, tuple[Path, Outcome]] = {}

    def __getitem__(self, name: str) -> tuple[Path, Outcome]:
        """The run directory and what `train --json` said."""
        if name not in self._made:
            run = self._folder / name
            outcome = isthmus("train", self._recipes / f"{name}.yaml", "--out", run, "--json")
            self._made[name] = run, outcome
        return self._made[name]


OPTIONS = RunOptions(device="cpu")


class Killer:
    """Ends a run at one place: a tracker that gets the records of a stage and acts at one step.

    Args:
        stage: Where.
        step: When.
        kind: At a `train` record or at a `validation` record.
        act: What happens; the default is an error as a killed process leaves it: nothing is saved any more.
    """

    def __init__(
        self, stage: str, step: int, *, kind: str = "train", act: Callable[[], None] | None = None
    ) -> None:
        self.place = stage, step, kind
        self.act = act or self._die
        self.acted = False

    @staticmethod
    def _die() -> None:
        raise KeyboardInterrupt

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of the progress bar."""
        killer = self

        class Tracker:
            def __init__(self, stage: str, options: RunOptions) -> None:
                self.name = stage

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *raised: object) -> None:
                pass

            def __call__(self, record: Record) -> None:
                if (self.name, record["step"], record["kind"]) == killer.place and not killer.acted:
                    killer.acted = True
                    killer.act()

        monkeypatch.setattr("isthmus.run.train.Progress", Tracker)
