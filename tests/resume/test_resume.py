"""A run that was stopped anywhere and resumed ends with the same bits as one that never stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from isthmus.core.errors import CheckpointError, MachineError, Stopped
from isthmus.training.checkpoint import Checkpoint
from isthmus.training.durability import write_tensors
from isthmus.training.signals import StopSignals

from .case import CHECKPOINT_EVERY, NUM_STEPS, VALIDATE_EVERY, Run

ROOT = Path(__file__).parents[2]
Outcome = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict[str, object]]]


class Killed(BaseException):
    """Stands for the end of the process: nothing handles it, so nothing is saved."""


def _dies_at(*steps: int) -> Callable[[int], None]:
    def die(step: int) -> None:
        if step in steps:
            raise Killed

    return die


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    run = Run(tmp_path_factory.mktemp("uninterrupted"))
    run.trainer.run()
    return run.outcome()


def _assert_same(found: Outcome, expected: Outcome) -> None:
    for tensors, others in zip(found[:2], expected[:2], strict=True):
        assert tensors.keys() == others.keys()
        assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    assert found[2] == expected[2]


def _resumed(directory: Path) -> Outcome:
    run = Run(directory)
    result = run.trainer.run(resume=True)
    assert result.steps == NUM_STEPS
    return run.outcome()


def test_two_runs_are_the_same(tmp_path: Path, uninterrupted: Outcome) -> None:
    run = Run(tmp_path)
    run.trainer.run()
    _assert_same(run.outcome(), uninterrupted)
    assert [record["step"] for record in uninterrupted[2] if record["kind"] == "train"] == list(
        range(1, NUM_STEPS + 1)
    )
    assert any(name.startswith("optimizer/exp_avg_sq/") for name in uninterrupted[1])
    assert any(name.startswith("average/") for name in uninterrupted[1])


@pytest.mark.parametrize(
    "step",
    [0, 1, CHECKPOINT_EVERY - 1, CHECKPOINT_EVERY, CHECKPOINT_EVERY + 1, 2 * CHECKPOINT_EVERY, NUM_STEPS - 1],
)
def test_killed_before_a_step(tmp_path: Path, uninterrupted: Outcome, step: int) -> None:
    with pytest.raises(Killed):
        Run(tmp_path, before_step=_dies_at(step)).trainer.run()
    _assert_same(_resumed(tmp_path), uninterrupted)


def test_killed_three_times(tmp_path: Path, uninterrupted: Outcome) -> None:
    for step, resume in ((2, False), (5, True), (10, True)):
        with pytest.raises(Killed):
            Run(tmp_path, before_step=_dies_at(step)).trainer.run(resume=resume)
    _assert_same(_resumed(tmp_path), uninterrupted)


@pytest.mark.parametrize("step", [VALIDATE_EVERY, 2 * VALIDATE_EVERY, NUM_STEPS])
def test_killed_in_validation(tmp_path: Path, uninterrupted: Outcome, step: int) -> None:
    with pytest.raises(Killed):
        Run(tmp_path, in_validation=_dies_at(step)).trainer.run()
    _assert_same(_resumed(tmp_path), uninterrupted)


def test_resumed_after_the_end(tmp_path: Path, uninterrupted: Outcome) -> None:
    first = Run(tmp_path).trainer.run()
    run = Run(tmp_path)
    again = run.trainer.run(resume=True)
    _assert_same(run.outcome(), uninterrupted)
    assert (again.loss, again.validation, again.steps) == (first.loss, first.validation, first.steps)


@pytest.mark.parametrize("when", ["middle", "end"])
def test_the_process_is_killed_while_it_saves(tmp_path: Path, uninterrupted: Outcome, when: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.resume.killed", str(tmp_path), when],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    names = sorted(path.name.split("-")[1].split(".")[-1] for path in (tmp_path / "checkpoints").iterdir())
    assert names == [str(CHECKPOINT_EVERY), "tmp"]
    _assert_same(_resumed(tmp_path), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_step(tmp_path: Path, uninterrupted: Outcome, number: signal.Signals) -> None:
    def ask(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), number)

    with StopSignals() as stop, pytest.raises(Stopped) as caught:
        Run(tmp_path, before_step=ask, stop=stop).trainer.run()
    assert caught.value.exit_code == 128 + number
    assert Run(tmp_path).store.steps() == [4, 6]
    _assert_same(_resumed(tmp_path), uninterrupted)


@pytest.mark.parametrize("step", [VALIDATE_EVERY, NUM_STEPS])
def test_a_signal_in_validation_saves_first_and_validates_later(
    tmp_path: Path, uninterrupted: Outcome, step: int
) -> None:
    with StopSignals() as stop:

        def ask(validated: int) -> None:
            if validated == step:
                os.kill(os.getpid(), signal.SIGTERM)
            stop.check()

        with pytest.raises(Stopped):
            Run(tmp_path, in_validation=ask, stop=stop).trainer.run()
    assert Run(tmp_path).store.steps()[-1] == step
    if step < NUM_STEPS:
        with pytest.raises(Killed):
            Run(tmp_path, before_step=_dies_at(step)).trainer.run(resume=True)
    _assert_same(_resumed(tmp_path), uninterrupted)
    _assert_same(_resumed(tmp_path), uninterrupted)


def test_a_full_disk_loses_nothing(tmp_path: Path, uninterrupted: Outcome) -> None:
    def refuses(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        if f"step-{CHECKPOINT_EVERY}." in str(path):
            write_tensors(path, tensors)
            return
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="saving step 8 failed: No space left on device"):
        Run(tmp_path, write=refuses).trainer.run()
    assert Run(tmp_path).store.steps() == [CHECKPOINT_EVERY]
    _assert_same(_resumed(tmp_path), uninterrupted)


def test_a_damaged_newest_checkpoint_falls_back(tmp_path: Path, uninterrupted: Outcome) -> None:
    with pytest.raises(Killed):
        Run(tmp_path, before_step=_dies_at(NUM_STEPS - 1)).trainer.run()
    os.truncate(tmp_path / "checkpoints" / "step-8" / "tensors.safetensors", 100)
    newest = Run(tmp_path).store.load_latest()
    assert isinstance(newest, Checkpoint)
    assert newest.step == 4
    _assert_same(_resumed(tmp_path), uninterrupted)


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Run(tmp_path, before_step=_dies_at(5)).trainer.run()
    with pytest.raises(CheckpointError, match="another recipe") as caught:
        Run(tmp_path, recipe_hash="other").trainer.run(resume=True)
    assert caught.value.exit_code == 4
