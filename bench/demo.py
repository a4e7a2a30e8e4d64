"""The first run's page: what was asked of it and what it reached, by picture and by kind of question.

Reads a finished run of `isthmus demo`; with `--parts` and `--joined` also the runs that `make demo-from-scratch` makes:
the two models that the package ships, and the demo on them before they were put into half precision.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results import Page, interval, named, percent

from isthmus.core.errors import DataError, IsthmusError

GOALS = {"real": 0.90, "lead": 0.45, "blind": 0.40, "seconds": 300, "bytes": 2_000_000_000}
"""Least share of right answers and lead over the best control; most of what the best answerer without pictures has, of
seconds and of memory."""
PICTURES = {
    "real": "its own",
    "blank": "blank",
    "shuffled": "another row's",
    "wrong": "the most similar other",
}


def main() -> int:
    """Write the page; the exit code is of the documented kind."""
    parser = argparse.ArgumentParser(description="Make docs/results/demo.md of a finished demo.")
    parser.add_argument("run", type=Path, help="a run of `isthmus demo`")
    parser.add_argument(
        "--parts", nargs="*", type=Path, default=[], help="runs of the models that it was joined from"
    )
    parser.add_argument(
        "--joined", type=Path, default=None, help="a demo on the models of those runs, judged"
    )
    given = parser.parse_args()
    try:
        found = _results(given.run)
        parts = {named(run): _results(run)["stages"] for run in given.parts}
        joined = None if given.joined is None else _results(given.joined)
    except IsthmusError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    judged = found["evaluation"]["test"]
    page = _page(found, judged, parts, given.run)
    numbers = {name: judged[name] for name in ("controls", "kinds", "n")} | {"parts": parts}
    if joined is not None:
        again = joined["evaluation"]["test"]
        page.command += f" --joined {named(given.joined)}"
        page.head("On the models that make demo-from-scratch trains, in full precision")
        page.table(["", "asked", "reached", ""], _goals(joined, again))
        numbers["joined"] = {name: again[name] for name in ("controls", "kinds", "n")}
    page.write("demo", numbers)
    return 0


def _results(run: Path) -> dict[str, Any]:
    file = run / "results.json"
    if not file.is_file():
        raise DataError(f"{named(run)} has no results.json; give the folder of a finished run")
    return json.loads(file.read_text(encoding="utf-8"))


def _page(
    found: Mapping[str, Any],
    judged: Mapping[str, Any],
    parts: Mapping[str, list[dict[str, Any]]],
    run: Path,
) -> Page:
    command = " ".join(["python bench/demo.py", named(run), *(["--parts", *parts] if parts else [])])
    page = Page(f"The first run ({judged['n']:,} questions about pairs never seen in training)", command)
    page.say(f"> {judged['controls']['verdict']}")
    page.head("Asked and reached")
    page.table(["", "asked", "reached", ""], _goals(found, judged))
    page.head("Right answers by picture, % with 95% intervals")
    page.table(
        ["questions", *(f"picture: {told}" for told in PICTURES.values())],
        [
            ["all", *_row(judged["controls"]["answers"])],
            *([f"{kind} ({one['real']['n']})", *_row(one)] for kind, one in judged["kinds"].items()),
        ],
    )
    page.head("Training")
    rows = [[named(run), stage] for stage in found["stages"]]
    rows += [[name, stage] for name, stages in parts.items() for stage in stages]
    page.table(
        ["run", "stage", "steps", "loss, mean of the last 50 steps", "seconds"],
        [
            [name, one["name"], f"{one['steps']:,}", f"{one['loss']:.3f}", f"{one['seconds']:.0f}"]
            for name, one in rows
        ],
    )
    return page


def _goals(found: Mapping[str, Any], judged: Mapping[str, Any]) -> list[list[str]]:
    answers, controls = judged["controls"]["answers"], judged["controls"]
    real, lead, blind = answers["real"]["accuracy"], controls["margin"], controls["best_picture_blind"]
    rows = [
        ["right answers", f"at least {GOALS['real']}", f"{real:.3f}", real >= GOALS["real"]],
        [
            f"lead over the best control ({controls['best_control']})",
            f"at least {GOALS['lead']}",
            interval(lead),
            lead["value"] >= GOALS["lead"],
        ],
        [
            "best answerer without pictures",
            f"at most {GOALS['blind']}",
            f"{blind:.3f}",
            blind <= GOALS["blind"],
        ],
    ]
    if "seconds" in found:
        seconds, memory = found["seconds"], found["peak_memory_bytes"]
        rows += [
            [
                "seconds, judging too",
                f"at most {GOALS['seconds']}",
                f"{seconds:.0f}",
                seconds <= GOALS["seconds"],
            ],
            ["peak memory, GB", "less than 2", f"{memory / 1e9:.2f}", memory < GOALS["bytes"]],
        ]
    return [[*row[:3], "reached" if row[3] else "**missed**"] for row in rows]


def _row(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{percent(answers[name]['accuracy'])} [{percent(answers[name]['interval'][0])}, "
        f"{percent(answers[name]['interval'][1])}]"
        for name in PICTURES
    ]


if __name__ == "__main__":
    sys.exit(main())
