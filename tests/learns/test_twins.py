"""The tiny twin of each published model, whole: it learns to look at pictures of compositions it never saw."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.config.load import load_recipe
from isthmus.core.options import RunOptions
from isthmus.data.sources.scenes import SceneSource
from isthmus.run.evaluate import evaluate
from isthmus.run.train import train

CONTROLS = ("blank", "shuffled", "wrong")


@dataclass(frozen=True)
class Bar:
    """What a twin has to reach on its 1,000 test questions (600 about clips).

    Attributes:
        real: Least share of right answers with the right picture.
        lead: Least lead of that share over the best control's.
    """

    real: float
    lead: float


BARS = {
    "flamingo": Bar(real=0.42, lead=0.04),
    "flamingo_clips": Bar(real=0.80, lead=0.06),
    "visual_text_model": Bar(real=0.43, lead=0.05),
    "anymal": Bar(real=0.53, lead=0.12),
    "clipcap": Bar(real=0.42, lead=0.04),
    "llava": Bar(real=0.80, lead=0.36),
    "llava_1_5": Bar(real=0.80, lead=0.38),
    "llava_next": Bar(real=0.62, lead=0.20),
    "siglip_gemma": Bar(real=0.76, lead=0.31),
}
"""Of each twin; above these, the right picture always has to beat the upper end of every control's 95% interval."""


def learnt(name: str, out: Path, *changes: str) -> tuple[dict[str, Any], str]:
    """Train a twin and judge it; returns what `isthmus evaluate` found and how long training took.

    Beside the clock's seconds stand the processor's, which do not count what other work takes.
    """
    started = time.process_time()
    trained = train(load_recipe(f"tiny/{name}", changes), out=out, options=RunOptions())
    busy, seconds = time.process_time() - started, sum(stage["seconds"] for stage in trained["stages"])
    return evaluate(out, split="test", options=RunOptions()), f"{seconds:.0f} s ({busy:.0f} s of processor)"


def shown(name: str, judged: dict[str, Any], seconds: str) -> str:
    answers = judged["controls"]["answers"]
    shares = [
        f"{picture} {one['accuracy']:.3f} ({one['interval'][0]:.3f} to {one['interval'][1]:.3f})"
        for picture, one in answers.items()
    ]
    return f"tiny/{name}, {seconds}: {', '.join(shares)}"


@pytest.mark.learns
@pytest.mark.parametrize("name", BARS)
def test_a_twin_learns_to_look(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged, seconds = learnt(name, tmp_path / "run")
    with capsys.disabled():
        print(f"\n{shown(name, judged, seconds)}")
    answers = judged["controls"]["answers"]
    real, best = answers["real"]["accuracy"], max(answers[control]["accuracy"] for control in CONTROLS)
    for control in CONTROLS:
        assert real > answers[control]["interval"][1], control
    assert real >= BARS[name].real
    assert real - best >= BARS[name].lead
    scene = SceneSource(split="test", num_samples=1).sample(0)
    assert isthmus.load(tmp_path / "run").answer(scene.images[0].picture(), scene.question)
