"""`isthmus curate instruct` against a server that answers well, badly, slowly, with errors, and stops half-way."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub import Answer, Behave, Stub, facts_of, said, talk, well
from typer.testing import Result

from isthmus.curation.instructions import pace
from isthmus.data.sources.llava import LlavaConversations

Serve = Callable[[Behave], Stub]
Instruct = Callable[..., Result]

FAST = ("--requests-per-minute", "60000", "--timeout-s", "5")
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_BASE_S", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def table(folder: Path, num_rows: int = 4, **changes: Any) -> Path:
    """Facts of some pictures; the pictures themselves are not there, because nobody may ask for them."""
    rows = [
        {
            "image": f"photo-{number}.jpg",
            "captions": [f"A dog runs past a fence with {number} posts.", "A dog in a garden."],
            "boxes": [{"label": "dog", "box": [0.1, 0.2, 0.5, 0.9]}],
        }
        for number in range(num_rows)
    ]
    rows[-1] |= changes
    file = folder / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def by(stub: Stub) -> tuple[str, ...]:
    return ("--endpoint", stub.url, "--model", "tiny", *FAST)


def kept(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "conversations.json").read_text())


def rejects(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]


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


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["facts.jsonl", "--endpoint", "http://192.0.2.1/v1", "--model", "m"], 6, "add --allow-network"),
        (["facts.jsonl", "--endpoint", "https://example.org/v1", "--model", "m"], 6, "add --allow-network"),
        (["facts.jsonl", "--endpoint", "127.0.0.1:80", "--model", "m"], 2, "expected a URL"),
        (["facts.jsonl", "--endpoint", "http://a:b@127.0.0.1/v1", "--model", "m"], 2, "a key belongs into"),
        (["facts.jsonl", "--endpoint", "http://127.0.0.1/v1"], 2, "--endpoint needs --model"),
        (
            ["facts.jsonl", "--endpoint", "http://127.0.0.1/v1", "--model", "m", "--local", "x"],
            2,
            "one of them",
        ),
        (["facts.jsonl"], 2, "the grammar writer knows only the built-in world"),
        (["scenes", "--kinds", "talk"], 2, "--kinds is 'talk'"),
        (["scenes", "--limit", "0"], 2, "--limit is 0"),
        (["scenes", "--max-cost", "1"], 2, "--max-cost needs --price-in and --price-out"),
        (["scenes", "--concurrency", "0"], 2, "--concurrency 1 or more"),
        (["photos", "--kinds", "detail"], 2, "FACTS is 'photos'"),
        (["nothing.jsonl"], 3, "cannot be read"),
        (["broken.jsonl"], 3, "line 1 is no valid JSON"),
        (["outside.jsonl"], 3, "outside the picture"),
        (["scenes", "--prompts", "."], 3, "has no conversation.txt"),
    ],
)
def test_wrong_use_is_one_sentence_and_leaves_no_folder(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    instruct: Instruct,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path)
    Path("broken.jsonl").write_text("{\n")
    line = {"image": "a.jpg", "captions": ["A dog."], "boxes": [{"label": "dog", "box": [0, 0, 640, 480]}]}
    Path("outside.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | {"image": "b.jpg"}) + "\n")
    ran = instruct(*arguments, "--out", "out")
    assert ran.exit_code == code, ran.output
    assert says in ran.stderr
    assert ran.stderr.startswith("isthmus: ")
    assert ran.stderr.count("\n") == 1
    assert not Path("out").exists()


def test_one_unusable_picture_is_skipped_and_listed(tmp_path: Path, serve: Serve, instruct: Instruct) -> None:
    stub, out = serve(well), tmp_path / "out"
    ran = instruct(table(tmp_path, captions=[""]), "--out", out, *by(stub), "--json")
    result = json.loads(ran.stdout)
    assert (result["written"], result["kept"], result["dropped"]) == (9, 9, 1)
    assert result["reasons"] == {"unusable facts": 1}
    assert rejects(out)[0]["found"].startswith("has an empty caption")


def test_coco_s_two_files_are_read_and_crowds_left_out(
    tmp_path: Path, serve: Serve, instruct: Instruct
) -> None:
    images = [{"id": 7, "file_name": "000000000007.jpg", "width": 200, "height": 100}]
    boxes = [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [20, 10, 100, 90.4], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    captions, instances = tmp_path / "captions.json", tmp_path / "instances.json"
    said_of = [{"id": 5, "image_id": 7, "caption": " A dog runs.\n"}]
    captions.write_text(json.dumps({"images": images, "annotations": said_of}))
    instances.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    stub = serve(well)
    arguments = (
        captions,
        "--instances",
        instances,
        "--kinds",
        "detail",
        "--out",
        tmp_path / "out",
        *by(stub),
    )
    assert instruct(*arguments).exit_code == 0
    facts = facts_of(stub.requests[0]).split("\n\nQuestion:")[0]
    assert facts == "A dog runs.\n\ndog: [0.100, 0.100, 0.600, 1.000]"
    assert kept(tmp_path / "out")[0]["image"] == "000000000007.jpg"


def test_the_grammar_needs_no_model_and_its_file_can_be_trained_on(
    tmp_path: Path, instruct: Instruct
) -> None:
    out = tmp_path / "out"
    ran = instruct("scenes", "--limit", 6, "--out", out, "--seed", 4)
    assert ran.exit_code == 0, ran.output
    assert "18 replies, 18 kept" in ran.stdout
    source = LlavaConversations(out / "conversations.json", out / "images")
    assert [source[number].images[0].picture().size for number in range(18)] == [(64, 64)] * 18
    first = (out / "conversations.json").read_bytes()
    more = instruct("scenes", "--limit", 8, "--out", out, "--seed", 4, "--resume")
    assert more.exit_code == 0, more.output
    assert "18 of 24 replies are there already" in more.stdout
    assert json.loads(first) == kept(out)[:18]


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
