"""The command line: options reach the verbs, results come out as promised, errors end with the documented code."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from isthmus.core.errors import CheckpointError, DataError, GuardError, MachineError, Stopped
from isthmus.core.options import RunOptions

RECIPE = """\
name: words
data: {train: {kind: folder, path: texts}}
model:
  kind: language_model
  language:
    kind: llama
    tokenizer: {kind: trained, data: train, vocabulary: 400}
    width: 64
    layers: 2
    heads: 4
    ffn: 172
    context: 128
stages:
  - {kind: train, name: read, train: [language], objective: {next_token: 1.0}, data: train, rows: text, epochs: 1, batch_size: 8, optimizer: {lr: 1e-3}}
"""

Install = Callable[[str, Callable[..., Any]], None]
Isthmus = Callable[..., Result]


def recipe_file(folder: Path) -> str:
    """A right recipe as a file."""
    (folder / "words.yaml").write_text(RECIPE)
    return str(folder / "words.yaml")


def test_train_gets_the_checked_recipe_and_all_options(
    tmp_path: Path, install: Install, isthmus: Isthmus
) -> None:
    seen: dict[str, Any] = {}

    def train(recipe: Any, **options: Any) -> dict[str, Any]:
        seen.update(options, recipe=recipe)
        row = {"name": "read", "steps": 3, "loss": 1.25, "seconds": 2.0, "trainable": 12345}
        return {"run": "runs/words", "stages": [row]}

    install("train", train)
    file = recipe_file(tmp_path)
    ran = isthmus(
        "train", file, "stages.read.steps=3", "--seed", "7", "--precision", "fp32", "--resume", "--dry-run"
    )
    assert ran.exit_code == 0, ran.output
    assert (seen["recipe"].seed, seen["recipe"].stages[0].steps) == (7, 3)
    assert seen["out"] == Path("runs/words")
    assert seen["resume"] is True
    assert seen["dry_run"] is True
    assert seen["options"] == RunOptions(precision="fp32", seed=7)
    assert ran.stdout.splitlines() == [
        "Stages",
        "stage  steps  loss (mean of the last 50)  seconds  trainable parameters",
        "read       3                       1.250    2.000                12,345",
        "run: runs/words",
    ]


def test_json_is_one_object_and_nothing_else_on_stdout(
    tmp_path: Path, install: Install, isthmus: Isthmus
) -> None:
    def train(recipe: Any, **options: Any) -> dict[str, Any]:
        del recipe
        print("step 1")
        assert options["options"].json is True
        return {"run": options["out"], "stages": []}

    install("train", train)
    ran = isthmus("train", recipe_file(tmp_path), "--json", "--out", "elsewhere")
    assert json.loads(ran.stdout) == {"run": "elsewhere", "stages": []}
    assert ran.stdout.count("\n") == 1
    assert "step 1" in ran.stderr


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (DataError("the file a.tar is missing"), 3, "the file a.tar is missing"),
        (CheckpointError("another recipe"), 4, "another recipe"),
        (GuardError("the loss is not finite"), 5, "the loss is not finite"),
        (MachineError("no CUDA device"), 6, "no CUDA device"),
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), 6, "the disk is full for x.bin"),
        (Stopped(15, "saved at step 3"), 143, "saved at step 3"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (ZeroDivisionError("boom"), 1, "this is a bug in isthmus (ZeroDivisionError: boom)"),
        (PermissionError(errno.EACCES, "denied"), 1, "this is a bug in isthmus (PermissionError"),
        (PermissionError(errno.EACCES, "denied", "x.bin"), 6, "x.bin cannot be used (denied)"),
        (FileNotFoundError(errno.ENOENT, "gone", "x.bin"), 1, "this is a bug in isthmus (FileNotFoundError"),
        (MemoryError(), 6, "the memory is not enough (MemoryError); take a smaller batch_size"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nMore"),
            6,
            "the memory is not enough (CUDA out of memory.)",
        ),
        (RuntimeError("cpu: can't allocate memory: 9 bytes"), 6, "the memory is not enough (cpu: can't"),
    ],
)
def test_errors_end_with_one_sentence_and_the_documented_code(
    raised: BaseException, code: int, says: str, tmp_path: Path, install: Install, isthmus: Isthmus
) -> None:
    def train(*_: Any, **__: Any) -> dict[str, Any]:
        raise raised

    install("train", train)
    ran = isthmus("train", recipe_file(tmp_path), "--json")
    assert ran.exit_code == code
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"isthmus: {says}")
    assert ran.stderr.count("\n") == 1
    assert "Traceback" not in ran.stderr


def test_a_bug_leaves_its_traceback_in_a_file_and_debug_shows_it(
    tmp_path: Path, install: Install, isthmus: Isthmus
) -> None:
    def train(*_: Any, **__: Any) -> dict[str, Any]:
        return {"run": 1 / 0}

    install("train", train)
    file = recipe_file(tmp_path)
    log = Path(isthmus("train", file).stderr.split("the details are in ")[1].split(",")[0])
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()
    shown = isthmus("train", file, "--debug")
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "nothing-like-it"], "there is no recipe 'nothing-like-it'"),
        (["trian"], "Did you mean 'train'?"),
        (["train"], "Missing argument"),
        (["train", "x", "--precision", "fp8"], "'fp8' is not one of 'auto', 'fp32', 'bf16'"),
        (["train", "x", "--seed", "-1"], "greater than or equal to 0"),
        (["evaluate", "x", "--split", "train"], "'train' is not one of 'val', 'test'"),
        (["show", "x", "--image-size", "640x"], "'640x' is not a picture size"),
        (["show", "x", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_use_ends_with_2(arguments: list[str], says: str, isthmus: Isthmus) -> None:
    ran = isthmus(*arguments)
    assert ran.exit_code == 2
    assert says in ran.stderr
    assert ran.stdout == ""


def test_the_network_is_off_unless_allowed(
    install: Install, isthmus: Isthmus, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    seen: list[set[str]] = []

    def ask(*_: Any) -> dict[str, Any]:
        seen.append({name for name in names if name in os.environ})
        return {"answer": "red", "tokens": 1, "seconds": 0.1}

    install("ask", ask)
    assert isthmus("ask", "runs/x", "x.jpg", "--allow-network").exit_code == 0
    assert isthmus("ask", "runs/x", "x.jpg").exit_code == 0
    assert seen == [set(), set(names)]


def test_what_a_model_says_cannot_steer_the_terminal(install: Install, isthmus: Isthmus) -> None:
    answer = "red\x1b[2J\x07\u202e\x9b31m \N{CAT FACE}\nblue"
    install("ask", lambda *_: {"answer": answer, "tokens": 3, "seconds": 0.1})
    shown = isthmus("ask", "runs/x", "x.jpg", "what?")
    assert shown.stdout == "red\\x1b[2J\\x07\\u202e\\x9b31m \N{CAT FACE}\nblue\n"
    raw = isthmus("ask", "runs/x", "x.jpg", "what?", "--json").stdout
    assert raw.isascii()
    assert "\x1b" not in raw
    assert json.loads(raw)["answer"] == answer


def test_a_result_that_is_no_json_is_a_bug_and_prints_nothing(install: Install, isthmus: Isthmus) -> None:
    for answer in (float("nan"), object()):
        install("ask", lambda *_, answer=answer: {"answer": answer})
        ran = isthmus("ask", "runs/x", "x.jpg", "--json", "--debug")
        assert (ran.exit_code, ran.stdout) == (1, "")
