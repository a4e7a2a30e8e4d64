"""What verbs print for people: tables that can be read and a verdict that comes last."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import Result

from isthmus.core.sizes import Size

Install = Callable[[str, Callable[..., Any]], None]
Isthmus = Callable[..., Result]

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
        {"name": "align", "trainable": 1_500, "frozen": 802_000, "parts": ["connector"], "freeze": []},
        {"name": "together", "trainable": 3_500, "frozen": 800_000, "parts": ["connector", "language"],
         "freeze": ["token_embeddings"]},
    ],
    "visual_tokens": 64,
}  # fmt: skip


def test_show_prints_parts_and_what_each_stage_trains(install: Install, isthmus: Isthmus) -> None:
    seen: list[Any] = []

    def show(
        target: str, overrides: list[str], *, image_size: Size | None, network_allowed: bool
    ) -> dict[str, Any]:
        seen.append((target, overrides, image_size, network_allowed))
        return TABLE

    install("show", show)
    ran = isthmus("show", "demo", "seed=1", "--image-size", "640x480")
    assert seen == [("demo", ["seed=1"], Size(height=480, width=640), False)]
    assert ran.stdout.splitlines() == [
        "Parts",
        "part        kind  parameters       in align    in together",
        "vision       vit     800,000         frozen         frozen",
        "connector    mlp       1,500        trained        trained",
        "language   llama       2,000         frozen        trained",
        "total                803,500  1,500 trained  3,500 trained",
        "stage align: 1,500 trained, 802,000 frozen",
        "stage together: 3,500 trained, 800,000 frozen, token_embeddings among them",
        "visual tokens a picture: 64",
    ]


def test_show_table_has_the_rows_inside_and_brackets_for_tied_ones(
    install: Install, isthmus: Isthmus
) -> None:
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
    assert lines[6].split()[3:] == ["frozen", "trained"]
    assert lines[7].split()[3:] == []  # what is in brackets is another row's, which says it
    assert "(in brackets: held by other rows too, counted once in the total)" in lines
    assert json.loads(isthmus("show", "demo", "--json").stdout) == TABLE


def test_demo_ends_with_the_verdict(install: Install, isthmus: Isthmus) -> None:
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


def test_evaluate_prints_metrics_and_controls_with_intervals(install: Install, isthmus: Isthmus) -> None:
    seen: dict[str, Any] = {}

    def evaluate(run: Path, **options: Any) -> dict[str, Any]:
        seen.update(options, run=run)
        control = {"accuracy": 0.3, "interval": [0.25, 0.35], "n": 10}
        metrics = {
            "cider": 0.45,
            "accuracy": {"value": 0.9, "interval": [0.8, 0.95]},
            "by_kind": {"colour": 0.5},
        }
        controls = {"blank": control, "verdict": "it looks"}
        return {"metrics": metrics, "controls": controls, "n": 10, "of": 1000}

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
        ["rows:", "10", "of", "1,000"],
        ["it", "looks"],
    ]
