import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.core.errors import GuardError, MachineError
from isthmus.core.files import replacing
from isthmus.training.guards import FiniteGuard, LossWindow
from isthmus.training.metrics import MetricsLog, tensorboard_tracker
from isthmus.training.signals import StopAsked, StopSignals


def _steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_records_are_lines_that_json_reads(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "deep" / "metrics.jsonl").write({"kind": "train", "step": 1, "loss": math.nan})
    line = (tmp_path / "deep" / "metrics.jsonl").read_text()
    assert json.loads(line) == {"kind": "train", "step": 1, "loss": None}
    assert line.endswith("\n")


def test_resuming_drops_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 2, 3):
        log.write({"kind": "train", "step": step})
    with path.open("a") as file:
        file.write('[]\n{"kind": "train"}\n{"kind": "train", "st')
    with path.open("ab") as file:
        file.write(b"\xff\xfe")
    log.truncate_after(2)
    log.write({"kind": "train", "step": 3})
    assert _steps(path) == [1, 2, 2, 3]


def test_a_failing_tracker_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard = []

    def fails(record: object) -> None:
        raise ConnectionError("no server")

    log = MetricsLog(tmp_path / "metrics.jsonl", trackers=[fails, heard.append])
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            log.write({"kind": "train", "step": step})
    assert caplog.text.count("no server") == 1
    assert len(heard) == 3
    assert _steps(tmp_path / "metrics.jsonl") == [0, 1, 2]


def test_a_log_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(MachineError, match="cannot be written"):
        MetricsLog(tmp_path / "metrics.jsonl").write({"kind": "train", "step": 1})


@pytest.mark.slow
def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = MetricsLog(tmp_path / "metrics.jsonl", trackers=[tensorboard_tracker(tmp_path / "board")])
    log.write({"kind": "train", "step": 1, "loss": 2.0})
    events = next((tmp_path / "board").iterdir()).read_bytes()
    assert b"train/loss" in events


def test_a_loss_that_is_not_finite_names_step_and_rows(tmp_path: Path) -> None:
    guard = FiniteGuard(stage="align", incidents=tmp_path)
    guard.check_losses(3, {"loss": 1.0}, ["a"])
    with pytest.raises(GuardError, match=r"stage 'align', step 3: .*next_token = nan.* rows a, b;") as caught:
        guard.check_losses(3, {"next_token": math.nan}, ["a", "b"])
    assert caught.value.exit_code == 5
    incident = json.loads((tmp_path / "incident-3.json").read_text())
    assert incident["sample_ids"] == ["a", "b"]
    assert incident["values"] == {"next_token": "nan"}


def test_a_jump_of_the_loss_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    window = LossWindow(size=30)
    with caplog.at_level(logging.WARNING):
        assert not any(window.add(step, 1.0 + 0.01 * (step % 3)) for step in range(25))
        assert not window.add(25, 1.08)  # ten deviations, but next to nothing
        assert window.add(25, 5.0)
        assert not window.add(26, 50.0)
    assert caplog.text.count("jumped") == 1
    again = LossWindow(size=30)
    again.restore(json.loads(json.dumps(window.to_json())))
    assert again.mean == window.mean
    assert not again.add(27, 500.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_handlers_return(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        stop.check()
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
        with pytest.raises(StopAsked):
            stop.check()
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from isthmus.training.signals import StopSignals\n"
        "with StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    source = Path(__file__).parents[2] / "src"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 143
    assert b"once more to stop at once" in ended.stderr


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "table.txt"
    with replacing(file) as unfinished:
        unfinished.write_text("old", encoding="utf-8")
        assert not file.exists()
    with (
        pytest.raises(MachineError, match=r"table\.txt cannot be written \(No space left"),
        replacing(file) as unfinished,
    ):
        unfinished.write_text("half of the n", encoding="utf-8")
        raise OSError(28, "No space left on device")
    assert file.read_text(encoding="utf-8") == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["table.txt"]
