"""`torchrun -m isthmus train`: two processes share each step's rows, and one of them writes the run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filtered
import pytest
import small
from safetensors.torch import load_file

SOURCE = Path(__file__).parents[2] / "src"
EXACT = ["--precision", "fp32", "stages.0.micro_batch_size=2", "stages.0.optimizer.eps=1e-3"]
"""Adam divides by the root of the second moment: where a gradient is rounding error, a small eps makes it a step."""

pytestmark = pytest.mark.slow


def start(recipe: Path, out: Path, *options: str, processes: int = 2) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(launcher if processes > 1 else []), "isthmus", "train", str(recipe)]
    paths = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, *EXACT, *options, "--out", str(out)],
        env=os.environ | {"PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return said


def steps_of(run: Path) -> list[dict[str, float]]:
    lines = (run / "contrast" / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


@pytest.mark.parametrize("objective", ["contrastive", "sigmoid"])
def test_two_processes_learn_what_one_learns(recipes: Path, tmp_path: Path, objective: str) -> None:
    changes = [f"stages.0.objective={{{objective}: 1.0}}"]
    changes += ["model.bias_init=-10.0"] if objective == "sigmoid" else []
    ended(start(recipes / "dual.yaml", tmp_path / "one", *changes, processes=1))
    said = ended(start(recipes / "dual.yaml", tmp_path / "two", *changes, "--json"))
    assert len(said.splitlines()) == 1
    assert json.loads(said)["stages"][0]["steps"] == 4
    one, two = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        # Measured 1e-5 at learning rate 1e-2 after four steps in float32.
        assert (tensor - two[name]).abs().max() < 2e-4, name
    for mine, other in zip(steps_of(tmp_path / "one"), steps_of(tmp_path / "two"), strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert other["rows"] == mine["rows"] == 8


def test_two_processes_remember_the_rows_of_both(tmp_path: Path) -> None:
    """Slow copies and queues of BLIP, as the first process wrote them after four steps of eight rows."""
    stage = small.stage(
        "pretrain", "vision, text, encoder, decoder, heads", "captions", objective=filtered.ALL
    )
    model = f"model: {{{filtered.MED}, momentum: {{queue: 40, decay: 0.9}}}}\n"
    recipe = small.written(
        tmp_path / "blip.yaml", f"name: blip\nseed: 3\n{small.DATA}{model}stages:\n{stage}"
    )
    ended(start(recipe, tmp_path / "run", "stages.0.micro_batch_size=null"))
    saved = load_file(tmp_path / "run" / "pretrain" / "checkpoints" / "step-4" / "tensors.safetensors")
    for side in ("images", "texts"):
        assert int(saved[f"model/momentum.{side}.num_seen"]) == 4 * 8
        vectors = saved[f"model/momentum.{side}.vectors"]
        assert vectors[:32].norm(dim=1).tolist() == pytest.approx([1.0] * 32, abs=1e-5)
        assert not vectors[32:].any()


def test_two_processes_go_on_bit_for_bit(recipes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended(start(recipes / "dual.yaml", run))
    before = load_file(run / "final" / "model.safetensors")
    for name in ("final", "contrast/checkpoints/step-4"):
        shutil.rmtree(run / name)
    for name in ("model.safetensors", "result.json"):
        (run / "contrast" / name).unlink()
    ended(start(recipes / "dual.yaml", run, "--resume"))
    after = load_file(run / "final" / "model.safetensors")
    assert [name for name, tensor in before.items() if not tensor.equal(after[name])] == []
    assert [record["step"] for record in steps_of(run)] == [1, 2, 3, 4]


def test_a_signal_stops_both_after_the_same_step(recipes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(recipes / "dual.yaml", run, "stages.0.steps=100000", "stages.0.checkpoint_every=100000")
    log, deadline = run / "contrast" / "metrics.jsonl", time.monotonic() + 60
    while not (log.is_file() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("stopped by SIGTERM after step") == 2
    (saved,) = (run / "contrast" / "checkpoints").iterdir()
    assert saved.name == f"step-{steps_of(run)[-1]['step']}"
