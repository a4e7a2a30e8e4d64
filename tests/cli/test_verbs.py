"""The command line: options reach the verbs, results come out as promised, errors end with the documented code."""

import errno
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli.app import app
from isthmus.core.errors import CheckpointError, DataError, GuardError, MachineError, Stopped
from isthmus.core.options import RunOptions
from isthmus.core.sizes import Size

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


@pytest.fixture(autouse=True)
def _environment_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a function in the place of `isthmus.run.VERB.VERB`, so that only the command line is tested."""

    def put(name: str, function: Callable[..., Any]) -> None:
        module = types.ModuleType(f"isthmus.run.{name}")
        vars(module)[name] = function
        monkeypatch.setitem(sys.modules, "isthmus.run", types.ModuleType("isthmus.run"))
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def isthmus(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments))


def recipe_file(folder: Path) -> str:
    """A right recipe as a file."""
    (folder / "words.yaml").write_text(RECIPE)
    return str(folder / "words.yaml")


def test_train_gets_the_checked_recipe_and_all_options(tmp_path: Path, install: Install) -> None:
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
        "stage  steps   loss  seconds  trainable parameters",
        "read       3  1.250    2.000                12,345",
        "run: runs/words",
    ]


def test_json_is_one_object_and_nothing_else_on_stdout(tmp_path: Path, install: Install) -> None:
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
    ],
)
def test_errors_end_with_one_sentence_and_the_documented_code(
    raised: BaseException, code: int, says: str, tmp_path: Path, install: Install
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


def test_a_bug_leaves_its_traceback_in_a_file_and_debug_shows_it(tmp_path: Path, install: Install) -> None:
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
def test_wrong_use_ends_with_2(arguments: list[str], says: str) -> None:
    ran = isthmus(*arguments)
    assert ran.exit_code == 2
    assert says in ran.stderr
    assert ran.stdout == ""


def test_the_network_is_off_unless_allowed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_a_model_says_cannot_steer_the_terminal(install: Install) -> None:
    answer = "red\x1b[2J\x07\u202e\x9b31m \N{CAT FACE}\nblue"
    install("ask", lambda *_: {"answer": answer, "tokens": 3, "seconds": 0.1})
    shown = isthmus("ask", "runs/x", "x.jpg", "what?")
    assert shown.stdout == "red\\x1b[2J\\x07\\u202e\\x9b31m \N{CAT FACE}\nblue\n"
    raw = isthmus("ask", "runs/x", "x.jpg", "what?", "--json").stdout
    assert raw.isascii()
    assert "\x1b" not in raw
    assert json.loads(raw)["answer"] == answer


def test_a_result_that_is_no_json_is_a_bug_and_prints_nothing(install: Install) -> None:
    for answer in (float("nan"), object()):
        install("ask", lambda *_, answer=answer: {"answer": answer})
        ran = isthmus("ask", "runs/x", "x.jpg", "--json", "--debug")
        assert (ran.exit_code, ran.stdout) == (1, "")


TABLE = {
    "parts": [
        {"name": "vision", "kind": "vit", "parameters": 800_000, "published_parameters": None, "parts": [
            {"name": "patches", "kind": "linear", "parameters": 300_000, "published_parameters": None},
            {"name": "blocks", "kind": "transformer", "parameters": 500_000, "published_parameters": None},
        ]},
        {"name": "connector", "kind": "mlp", "parameters": 1_500, "published_parameters": None},
        {"name": "language", "kind": "llama", "parameters": 2_000, "published_parameters": None, "parts": [
            {"name": "head", "kind": "linear", "parameters": 640, "published_parameters": None, "tied": True},
        ]},
    ],
    "total": 803_500,
    "published_total": None,
    "stages": [
        {"name": "align", "trainable": 1_500, "frozen": 802_000, "parts": ["connector"]},
        {"name": "together", "trainable": 3_500, "frozen": 800_000, "parts": ["connector", "language"]},
    ],
    "visual_tokens": 64,
}  # fmt: skip


def test_show_prints_parts_and_what_each_stage_trains(install: Install) -> None:
    seen: list[Any] = []

    def show(target: str, *, image_size: Size | None) -> dict[str, Any]:
        seen.append((target, image_size))
        return TABLE

    install("show", show)
    ran = isthmus("show", "demo", "--image-size", "640x480")
    assert seen == [("demo", Size(height=480, width=640))]
    assert ran.stdout.splitlines() == [
        "Parts",
        "part        kind  parameters       in align    in together",
        "vision       vit     800,000         frozen         frozen",
        "connector    mlp       1,500        trained        trained",
        "language   llama       2,000         frozen        trained",
        "total                803,500  1,500 trained  3,500 trained",
        "stage align: 1,500 trained, 802,000 frozen",
        "stage together: 3,500 trained, 800,000 frozen",
        "visual tokens a picture: 64",
    ]


def test_show_table_has_the_rows_inside_and_brackets_for_tied_ones(install: Install) -> None:
    install("show", lambda *_, **__: TABLE)
    lines = isthmus("show", "demo", "--table").stdout.splitlines()
    assert [line.split()[:3] for line in lines[2:9]] == [
        ["vision", "vit", "800,000"],
        ["patches", "linear", "300,000"],
        ["blocks", "transformer", "500,000"],
        ["connector", "mlp", "1,500"],
        ["language", "llama", "2,000"],
        ["head", "linear", "(640)"],
        ["total", "803,500", "1,500"],
    ]
    assert lines[3].startswith("  patches")
    assert lines[7].split()[3:] == ["frozen", "trained"]
    assert "(in brackets: tied, counted once in the total)" in lines
    assert json.loads(isthmus("show", "demo", "--json").stdout) == TABLE


def test_demo_ends_with_the_verdict(install: Install) -> None:
    answers = {
        name: {"accuracy": share, "interval": [share - 0.02, share + 0.02], "n": 1200}
        for name, share in {"real": 0.93, "blank": 0.31, "shuffled": 0.29, "wrong": 0.35}.items()
    }
    result = {
        "answers": answers,
        "verdict": "it looks",
        "seconds": 200.0,
        "report": Path("runs/demo/report.html"),
    }
    install("demo", lambda **_: result)
    lines = isthmus("demo").stdout.splitlines()
    assert lines[2].split() == ["real", "0.930", "0.910", "to", "0.950", "1,200"]
    assert lines[-1] == "it looks"
    assert json.loads(isthmus("demo", "--json").stdout)["report"] == "runs/demo/report.html"


def test_evaluate_prints_metrics_and_controls_with_intervals(install: Install) -> None:
    seen: dict[str, Any] = {}

    def evaluate(run: Path, **options: Any) -> dict[str, Any]:
        seen.update(options, run=run)
        control = {"accuracy": 0.3, "interval": [0.25, 0.35], "n": 10}
        metrics = {
            "cider": 0.45,
            "accuracy": {"value": 0.9, "interval": [0.8, 0.95]},
            "by_kind": {"colour": 0.5},
        }
        return {"metrics": metrics, "controls": {"blank": control}, "n": 10}

    install("evaluate", evaluate)
    ran = isthmus("evaluate", "runs/x", "--split", "val", "--limit", "10")
    assert (seen["run"], seen["data"], seen["split"], seen["limit"]) == (Path("runs/x"), None, "val", 10)
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["Metrics"],
        ["name", "value", "95%", "interval"],
        ["cider", "0.450"],
        ["accuracy", "0.900", "0.800", "to", "0.950"],
        ["by_kind", "colour", "0.500"],
        ["Controls"],
        ["name", "value", "95%", "interval"],
        ["blank", "0.300", "0.250", "to", "0.350"],
        ["rows:", "10"],
    ]
