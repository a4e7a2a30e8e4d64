"""What stops `isthmus curate instruct`, what it keeps, and how it goes on."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asked import by, kept, table
from stub import Answer, Behave, Stub, facts_of, well
from typer.testing import Result

Serve = Callable[[Behave], Stub]
Instruct = Callable[..., Result]


@pytest.mark.parametrize(
    ("trouble", "code", "says", "sent"),
    [
        (Answer(status=500), 6, "failed 3 times", 3),
        (Answer(status=429, headers={"Retry-After": "3600"}), 6, "asks to wait for 3,600 seconds", 1),
        (Answer(status=401), 2, "refuses the key; set the environment variable", 1),
        (Answer(status=404), 2, "no model 'tiny'; check --endpoint and --model", 1),
        (Answer(status=302, headers={"Location": "http://example.org/"}), 2, "gives no completions", 1),
    ],
)
def test_lasting_trouble_stops_with_one_sentence_and_keeps_what_is_there(
    trouble: Answer, code: int, says: str, sent: int, tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    def behave(number: int, request: dict[str, Any]) -> Answer:
        return well(number, request) if number < 2 else trouble

    stub, out = serve(behave), tmp_path / "out"
    ran = instruct(table(tmp_path), "--out", out, *by(stub), "--concurrency", 1, "--retries", 2)
    assert ran.exit_code == code, ran.output
    assert says in ran.stderr
    assert ran.stderr.count("isthmus:") == 1
    assert len(stub.bodies) == 2 + sent
    assert len(kept(out)) == 2


def test_an_interrupted_run_goes_on_to_the_same_file_and_asks_nothing_twice(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    file, whole, out = table(tmp_path), tmp_path / "whole", tmp_path / "out"
    assert instruct(file, "--out", whole, *by(serve(well))).exit_code == 0

    down = serve(lambda number, request: well(number, request) if number < 7 else Answer(status=500))
    stopped = instruct(file, "--out", out, *by(down), "--concurrency", 3, "--retries", 0)
    assert stopped.exit_code == 6
    assert "go on with --resume" in stopped.stderr
    journal = out / "journal.jsonl"
    there = journal.read_text().splitlines()[1:]
    assert len(there) == 7
    journal.write_text(journal.read_text() + '{"key": "photo-3.jpg/reas')  # a crash in the middle of a line

    again = serve(well)
    ran = instruct(file, "--out", out, "--resume", *by(again))
    assert ran.exit_code == 0, ran.output
    assert "7 of 12 replies are there already" in ran.stdout
    assert len(again.bodies) == 5
    asked = {
        (body["messages"][0]["content"], facts_of(body))
        for stub in (down, again)
        for body in stub.requests[:7]
    }
    assert len(asked) == 12
    for name in ("conversations.json", "rejects.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_resumed_run_with_other_settings_is_refused(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    stub, out = serve(well), tmp_path / "out"
    file = table(tmp_path, 1)
    assert instruct(file, "--out", out, *by(stub)).exit_code == 0
    again = instruct(file, "--out", out, *by(stub))
    assert again.exit_code == 4
    assert "exists and holds conversations.json; go on with --resume" in again.stderr
    other = instruct(file, "--out", out, "--resume", *by(stub), "--temperature", "0.1")
    assert other.exit_code == 4
    assert "was written with writer = tiny, temperature 0.7" in other.stderr
    assert len(stub.bodies) == 3
    (out / "journal.jsonl").write_text("no journal\n")
    damaged = instruct(file, "--out", out, "--resume", *by(stub))
    assert (damaged.exit_code, "line 1 is damaged" in damaged.stderr) == (4, True)


def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path, instruct: Instruct) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    ran = instruct("scenes", "--out", tmp_path / "photos", "--resume")
    assert (ran.exit_code, "holds no journal.jsonl to go on with" in ran.stderr) == (4, True)
    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_the_money_stops_the_run_and_keeps_what_is_written(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    stub, out = serve(well), tmp_path / "out"
    money = ("--price-in", "10", "--price-out", "50")  # 100 and 20 tokens: 0.002 a reply
    ran = instruct(
        table(tmp_path), "--out", out, *by(stub), *money, "--max-cost", "0.011", "--concurrency", 1
    )
    assert ran.exit_code == 5
    assert "stopped before more than 0.011 would be spent: 5 of 12 replies are there for 0.0100" in ran.stderr
    assert len(stub.bodies) == len(kept(out)) == 5
    more = instruct(
        table(tmp_path),
        "--out",
        out,
        "--resume",
        *by(stub),
        *money,
        "--max-cost",
        "0.024",
        "--concurrency",
        1,
    )
    assert more.exit_code == 0, more.output
    assert len(stub.bodies) == 12


def test_a_server_that_reports_no_tokens_still_costs_money(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    def behave(number: int, request: dict[str, Any]) -> Answer:
        found = json.loads(well(number, request).body)
        del found["usage"]
        return Answer(body=json.dumps(found).encode())

    stub = serve(behave)
    ran = instruct(table(tmp_path, 1), "--out", tmp_path / "out", *by(stub), "--price-in", "1", "--json")
    characters = [sum(len(one["content"]) for one in request["messages"]) for request in stub.requests]
    assert json.loads(ran.stdout)["tokens"]["in"] == sum(-(-count // 3) for count in characters)


def test_a_stop_signal_keeps_what_is_there(tmp_path: Path, serve: Serve, instruct: Instruct) -> None:
    def behave(number: int, request: dict[str, Any]) -> Answer:
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return well(number, request)

    stub, out = serve(behave), tmp_path / "out"
    ran = instruct(table(tmp_path), "--out", out, *by(stub), "--concurrency", 1)
    assert ran.exit_code == 143
    there = len(stub.bodies)
    assert there < 12
    assert f"stopped with {there} of 12 replies kept; go on with --resume" in ran.stderr
    assert len(kept(out)) == there
    assert instruct(table(tmp_path), "--out", out, "--resume", *by(stub)).exit_code == 0
    assert len(stub.bodies) == len(kept(out)) == 12
