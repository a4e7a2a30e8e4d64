"""`isthmus demo`: the offline first run, from the built-in world to a verdict."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

from isthmus.config.load import load_recipe
from isthmus.core.options import RunOptions
from isthmus.run.directory import RunDirectory
from isthmus.run.evaluate import evaluate
from isthmus.run.progress import console_of
from isthmus.run.report import write_run_report
from isthmus.run.train import train

RECIPE = "demo"


def demo(*, out: Path, options: RunOptions) -> dict[str, Any]:
    """Train on drawn scenes, judge on compositions that training never showed, say whether the model looks.

    Raises:
        CheckpointError: `out` holds another run already.
    """
    started = time.monotonic()
    changes = [] if options.seed is None else [f"seed={options.seed}"]
    recipe = load_recipe(RECIPE, changes)
    directory = RunDirectory(out)
    console, begun = console_of(options), directory.recipe_file.is_file()
    before = directory.read_results()
    if begun:
        console.print(f"{out} holds a demo already: what is missing is trained, and it is judged again")
    trained = train(recipe, out=out, resume=begun, options=options)
    console.print("judging on held-out compositions, with the picture and without it")
    judged = evaluate(out, split="test", options=options)
    summary = {
        "answers": judged["controls"]["answers"],
        "verdict": judged["controls"]["verdict"],
        "seconds": time.monotonic() - started,
        "report": str(directory.report),
    }
    took = {"seconds": summary["seconds"], "peak_memory_bytes": peak_memory_bytes()}
    # What it took the first time stands, whoever judges it again.
    first = {key: before.get(key, value) for key, value in took.items()}
    directory.add_results(summary | first | {"command": "isthmus demo"})
    write_run_report(directory)
    return summary | {"stages": trained["stages"], "results": str(directory.results)}


def peak_memory_bytes() -> int:
    """The most memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
