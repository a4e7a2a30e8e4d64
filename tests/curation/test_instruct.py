"""`isthmus curate instruct` against a server that answers well, badly, slowly, with errors and half."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asked import by, kept, rejects, table
from stub import Answer, Behave, Stub, said, talk, well
from typer.testing import Result

from isthmus.curation.instructions import pace
from isthmus.curation.instructions.prompts import SHIPPED
from isthmus.data.sources.llava import LlavaConversations

Serve = Callable[[Behave], Stub]
Instruct = Callable[..., Result]


KEY = "a-key-that-nobody-may-see"


def test_a_good_endpoint_gives_rows_of_llava_s_form(
    tmp_path: Path, serve: Serve, instruct: Instruct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub, out = serve(well), tmp_path / "out"
    prices = ("--price-in", "2", "--price-out", "10")
    ran = instruct(table(tmp_path), "--out", out, *by(stub), *prices, "--json")
    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert (result["written"], result["kept"], result["dropped"]) == (12, 12, 0)
    assert result["kinds"] == {"conversation": 4, "detail": 4, "reasoning": 4}
    assert result["tokens"] == {"in": 1200, "out": 240}
    assert result["cost"] == pytest.approx((1200 * 2 + 240 * 10) / 1e6)
    rows = kept(out)
    assert [row["id"] for row in rows[:3]] == [f"photo-0.jpg-{kind}" for kind in result["kinds"]]
    assert rows[0]["conversations"][0] == {"from": "human", "value": "<image>\nWhat can be seen?"}
    assert rows[0]["conversations"][1]["from"] == "gpt"
    (tmp_path / "photos").mkdir()
    read = LlavaConversations(out / "conversations.json", tmp_path / "photos")
    assert len(read) == 12
    assert all(header["Authorization"] == f"Bearer {KEY}" for header in stub.headers)
    written = [file.read_text() for file in out.iterdir() if file.is_file()]
    assert not any(KEY in text for text in [*written, ran.stdout, ran.stderr])


def test_no_picture_is_ever_sent(tmp_path: Path, serve: Serve, instruct: Instruct) -> None:
    stub = serve(well)
    assert instruct("scenes", "--limit", 3, "--out", tmp_path / "out", *by(stub)).exit_code == 0
    assert len(stub.bodies) == 9
    for request, body in zip(stub.requests, stub.bodies, strict=True):
        assert set(request) == {"model", "messages", "max_tokens", "temperature"}
        assert all(set(message) == {"role", "content"} for message in request["messages"])
        assert all(isinstance(message["content"], str) for message in request["messages"])
        assert not any(mark in body for mark in (b"base64", b"image_url", b"data:", b".png", b".jpg"))
        assert [message["role"] for message in request["messages"]] == [
            "system", "user", "assistant", "user", "assistant", "user",
        ]  # fmt: skip
        assert len(body) < 10_000


def test_bad_replies_are_dropped_each_with_its_reason(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    answers = [
        talk(("What runs?", "A dog.")),
        said("Sure! The dog is running through the garden."),
        talk(("What runs?", "A dog and a zebra.")),
        talk(("What runs?", "A dog.")),
        talk(("What runs?", "")),
        talk(("It runs.", "A dog does.")),
        talk(("What runs?", "The caption says a dog.")),
        Answer(status=400, body=b"too long"),
    ]
    stub, out = serve(lambda number, _: answers[number]), tmp_path / "out"
    file = table(tmp_path, 8, boxes=[{"label": "zebra", "box": [0, 0, 1, 1]}])
    ran = instruct(file, "--out", out, "--kinds", "detail", "--concurrency", 1, *by(stub))
    assert ran.exit_code == 0, ran.output
    assert len(kept(out)) == 1
    assert [reject["reason"] for reject in rejects(out)] == [
        "no JSON",
        "names what is not there",
        "duplicate",
        "empty answer",
        "does not ask first",
        "speaks of captions or boxes",
        "refused by the writer",
    ]
    assert rejects(out)[0] | {"found": ""} == {
        "id": "photo-1.jpg",
        "image": "photo-1.jpg",
        "origin": f"{file} line 2",
        "kind": "detail",
        "reason": "no JSON",
        "found": "",
        "reply": "Sure! The dog is running through the garden.",
    }
    assert "Dropped" in ran.stdout
    assert "8 replies, 1 kept" in ran.stdout


def test_an_endpoint_that_only_writes_prose_ends_with_3(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    stub, out = serve(lambda *_: said("A dog runs.")), tmp_path / "out"
    ran = instruct(table(tmp_path), "--out", out, *by(stub))
    assert ran.exit_code == 3
    assert "none of 12 replies could be kept; 12 of them for the reason 'no JSON'" in ran.stderr
    assert ran.stderr.count("isthmus:") == 1
    assert kept(out) == []
    assert len(rejects(out)) == 12


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(status=429),
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(status=500, body=b"<html>"),
        Answer(status=503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        Answer(wait_s=30),
        Answer(body=b"<html>a proxy's page</html>"),
        Answer(body=b'{"choices": []}'),
        Answer(body=b'{"choices": [{"message": {"content": "half', headers={"Content-Length": "5000"}),
    ],
    ids=["429", "429 wait", "500", "503 date", "slow", "a page", "nothing", "half"],
)
def test_passing_trouble_is_repeated(
    trouble: Answer, tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    def behave(number: int, request: dict[str, Any]) -> Answer:
        return trouble if number in (1, 2) else well(number, request)

    stub, out = serve(behave), tmp_path / "out"
    quick = [*by(stub)[:-1], "0.3"]
    ran = instruct(table(tmp_path, 1), "--out", out, *quick, "--concurrency", 1)
    assert ran.exit_code == 0, ran.output
    assert len(stub.bodies) == 5
    assert len(kept(out)) == 3


def test_prompts_and_examples_of_one_s_own_reach_the_writer(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    folder, stub = tmp_path / "prompts", serve(well)
    shutil.copytree(SHIPPED, folder)
    (folder / "detail.txt").write_text("Say all that there is.\n")
    example = {"image": "x.jpg", "captions": ["A cat."], "boxes": [{"label": "cat", "box": [0, 0, 0.5, 1]}]}
    turns = [{"question": "What lies there?", "answer": "A cat."}]
    (folder / "detail.jsonl").write_text(json.dumps(example | {"turns": turns}) + "\n")
    (folder / "detail_questions.txt").write_text("What do you see?\n")
    chosen = ("--prompts", folder, "--kinds", "detail")
    out = tmp_path / "out"
    assert instruct(table(tmp_path, 1), "--out", out, *chosen, *by(stub)).exit_code == 0
    facts = "A dog runs past a fence with 0 posts.\nA dog in a garden.\n\ndog: [0.100, 0.200, 0.500, 0.900]"
    assert [one["content"] for one in stub.requests[0]["messages"]] == [
        "Say all that there is.",
        "A cat.\n\ncat: [0.000, 0.000, 0.500, 1.000]\n\nQuestion: What lies there?",
        json.dumps({"turns": turns}),
        f"{facts}\n\nQuestion: What do you see?",
    ]
    (folder / "detail.txt").write_text("Say less.\n")
    again = instruct(table(tmp_path, 1), "--out", out, "--resume", *chosen, *by(stub))
    assert (again.exit_code, "was written with prompts" in again.stderr) == (4, True)


def test_half_a_character_is_no_reason_to_end(tmp_path: Path, serve: Serve, instruct: Instruct) -> None:
    """JSON can spell it, in the reply and in the JSON inside the reply; no UTF-8 file can hold it."""
    half = r'{"turns": [{"question": "What \ud83d runs?", "answer": "A dog."}]}'
    answers = [said(half), said("A dog \ud83d runs."), talk(("What runs?", "A dog \U0001f415."))]
    stub, out = serve(lambda number, _: answers[number]), tmp_path / "out"
    ran = instruct(table(tmp_path, 3), "--out", out, "--kinds", "detail", "--concurrency", 1, *by(stub))
    assert ran.exit_code == 0, ran.output
    assert [reject["reason"] for reject in rejects(out)] == ["no JSON", "no JSON"]
    assert [reject["reply"] for reject in rejects(out)] == [half, "A dog ? runs."]
    assert kept(out)[0]["conversations"][1]["value"] == "A dog \U0001f415."


@pytest.mark.parametrize("reported", ["1e999", "-5", "null", '"many"'])
def test_tokens_that_are_no_number_are_estimated(
    reported: str, tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    def behave(number: int, request: dict[str, Any]) -> Answer:
        text = well(number, request).body.decode()
        return Answer(body=text.replace('"prompt_tokens": 100', f'"prompt_tokens": {reported}').encode())

    stub = serve(behave)
    ran = instruct(table(tmp_path, 1), "--out", tmp_path / "out", *by(stub), "--json")
    characters = [sum(len(one["content"]) for one in request["messages"]) for request in stub.requests]
    assert json.loads(ran.stdout)["tokens"] == {"in": sum(-(-count // 3) for count in characters), "out": 60}


def test_retry_after_is_honoured(tmp_path: Path, serve: Serve, instruct: Instruct) -> None:
    waits: list[float] = []

    def behave(number: int, request: dict[str, Any]) -> Answer:
        return Answer(status=429, headers={"Retry-After": "1"}) if number == 0 else well(number, request)

    stub = serve(behave)
    hold = pace.RateLimiter.hold

    def noted(self: pace.RateLimiter, seconds: float) -> None:
        waits.append(seconds)
        hold(self, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace.RateLimiter, "hold", noted)
        assert instruct(table(tmp_path, 1), "--out", tmp_path / "out", *by(stub)).exit_code == 0
    assert waits == [1.0]


def test_requests_run_side_by_side_but_no_more_than_asked(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    lock, now, most = threading.Lock(), [0], [0]
    meeting = threading.Barrier(3)

    def behave(number: int, request: dict[str, Any]) -> Answer:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meeting.wait(timeout=10)  # passes only if three are here at once
        with lock:
            now[0] -= 1
        return well(number, request)

    stub = serve(behave)
    ran = instruct(table(tmp_path), "--out", tmp_path / "out", *by(stub), "--concurrency", 3)
    assert ran.exit_code == 0, ran.output
    assert most == [3]
