"""What `isthmus curate instruct` is given: facts of three formats, and wrong use."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from asked import by, kept, rejects, table
from stub import Behave, Stub, facts_of, well
from typer.testing import Result

from isthmus.data.sources.llava import LlavaConversations

Serve = Callable[[Behave], Stub]
Instruct = Callable[..., Result]


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
        (["scenes", "--timeout-s", "nan"], 2, "--timeout-s is nan"),
        (["scenes", "--timeout-s", "1e9"], 2, "--timeout-s is 1e+09"),
        (["scenes", "--max-cost", "inf"], 2, "--max-cost is inf"),
        (["scenes", "--requests-per-minute", "nan"], 2, "--requests-per-minute is nan"),
        (["scenes", "--temperature", "inf"], 2, "--temperature inf"),
        (["scenes", "--instances", "facts.jsonl"], 2, "COCO's instances go with its captions file"),
        (["scenes", "--local", "facts.jsonl"], 2, "--local is 'facts.jsonl', which is no folder"),
        (["facts.jsonl", "--endpoint", "http://[::1", "--model", "m"], 2, "expected a URL"),
        (["facts.jsonl", "--endpoint", "http://127.0.0.1:99999/v1", "--model", "m"], 2, "expected a URL"),
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
