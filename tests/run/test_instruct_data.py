"""Recipes whose language model writes instruction data: a stage writes what `isthmus curate instruct` writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import small

from isthmus.curation.instructions.grammar import GrammarWriter
from isthmus.curation.instructions.local import LocalWriter
from isthmus.curation.instructions.writer import Reply, Request
from isthmus.reports.content import Results
from isthmus.run.instruct_report import with_written

SHORT = ("--max-tokens", "8", "--limit", "2", "--kinds", "detail,reasoning", "--seed", "5")
STAGE = "kind: instruct, name: write, facts: scenes, limit: 2, kinds: [detail, reasoning], max_tokens: 8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.language_folder(tmp_path_factory.mktemp("local") / "language")


def twin(folder: Path) -> list[str]:
    """What makes the shipped recipe a small one about drawn scenes."""
    return [
        f"model.language={{kind: pretrained, name: {folder}, context: 4096}}",
        f"stages=[{{{STAGE}}}]",
        "seed=5",
    ]


def journal(out: Path) -> list[dict[str, Any]]:
    """The replies as they came, without what the writer is called."""
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if "settings" not in line]


@pytest.fixture
def by_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the language model say what the grammar says: a random one never writes JSON."""

    def write(writer: LocalWriter, request: Request) -> Reply:
        del writer
        return GrammarWriter().write(request)

    monkeypatch.setattr(LocalWriter, "write", write)


def test_a_chat_model_of_true_size_is_counted_without_its_weights() -> None:
    said = small.isthmus("show", "instruct_data", "--json").json
    assert said["total"] == said["published_total"] == 6_738_415_616
    (stage,) = said["stages"]
    assert (stage["kind"], stage["trainable"]) == ("instruct", 0)
    shown = small.isthmus("show", "instruct_data").out
    assert "stage write: writes conversation, detail, reasoning from data/coco" in shown


@pytest.mark.usefixtures("by_grammar")
def test_the_recipe_writes_what_the_command_writes(folder: Path, tmp_path: Path) -> None:
    run, grammar = tmp_path / "run", tmp_path / "grammar"
    said = small.isthmus("train", "instruct_data", *twin(folder), "--out", run, "--json").json
    (stage,) = said["stages"]
    assert (stage["written"], stage["kept"], stage["dropped"]) == (4, 4, 0)
    assert stage["kinds"] == {"detail": 2, "reasoning": 2}
    assert small.isthmus("curate", "instruct", "scenes", *SHORT, "--out", grammar).code == 0
    for name in ("conversations.json", "images/train-0.png", "images/train-1.png"):
        assert (run / "write" / name).read_bytes() == (grammar / name).read_bytes()
    assert json.loads((run / "results.json").read_text())["stages"] == said["stages"]
    page = re.sub(r"<[^>]+>|\s+", " ", (run / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"Instruction data written by stage write +metric +kept +4 replies +100.0% ", page)
    assert "Kept: 2 of kind detail, 2 of kind reasoning." in page
    assert not (run / "final").exists()
    again = small.isthmus("train", "instruct_data", *twin(folder), "--out", run, "--resume", "--json").json
    assert again == said
    asked = small.isthmus("ask", run, run / "write" / "images" / "train-0.png")
    assert (asked.code, "trained nothing" in asked.sentence, str(run / "write") in asked.sentence) == (
        2,
        True,
        True,
    )


def test_stage_command_and_folder_give_the_same_replies(folder: Path, tmp_path: Path) -> None:
    """A random model's replies are no JSON, so that each ends with 3; its words are the same in all three ways."""
    recipe = small.written(
        tmp_path / "small.yaml",
        "name: small\nmodel:\n  kind: language_model\n"
        f"  language: {{kind: pretrained, name: {folder}, context: 4096}}\nseed: 5\nstages: [{{{STAGE}}}]\n",
    )
    long = folder.with_name("long")
    long.mkdir(exist_ok=True)
    for file in folder.iterdir():
        text = file.read_bytes().replace(b'"max_position_embeddings": 64', b'"max_position_embeddings": 4096')
        (long / file.name).write_bytes(text)
    ways = {
        "stage": ("train", recipe, "--out", tmp_path / "run"),
        "recipe": ("curate", "instruct", "scenes", *SHORT, "--local", recipe, "--out", tmp_path / "recipe"),
        "folder": ("curate", "instruct", "scenes", *SHORT, "--local", long, "--out", tmp_path / "folder"),
    }
    for arguments in ways.values():
        ended = small.isthmus(*arguments)
        assert (ended.code, "none of 4 replies could be kept" in ended.sentence) == (3, True)
    first, second, third = map(
        journal, (tmp_path / "run" / "write", tmp_path / "recipe", tmp_path / "folder")
    )
    assert first == second == third
    assert len(first) == 4
    assert all(reply["tokens_out"] > 0 for reply in first)


def test_a_model_that_a_stage_before_trained_writes(tmp_path: Path) -> None:
    text = small.ALONE.replace("context: 64", "context: 2048").replace(
        "name: small-alone\n", "name: small\nseed: 5\n"
    )
    trained = small.written(tmp_path / "trained.yaml", text)
    both = small.written(tmp_path / "both.yaml", f"{text}  - {{{STAGE}}}\n")
    run = tmp_path / "run"
    assert small.isthmus("train", both, "--out", run).code == 3  # its words are no JSON
    assert small.isthmus("train", trained, "--out", tmp_path / "alone").code == 0
    local = ("--local", tmp_path / "alone", "--out", tmp_path / "out")
    assert small.isthmus("curate", "instruct", "scenes", *SHORT, *local).code == 3
    assert journal(run / "write") == journal(tmp_path / "out")
    assert journal(run / "write")[0]["tokens_out"] > 0


@pytest.mark.usefixtures("by_grammar")
def test_a_stage_that_was_stopped_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    write, asked = LocalWriter.write, []

    def once(writer: LocalWriter, request: Request) -> Reply:
        if asked:
            raise KeyboardInterrupt
        asked.append(request.key)
        return write(writer, request)

    with monkeypatch.context() as patched:
        patched.setattr(LocalWriter, "write", once)
        assert small.isthmus("train", "instruct_data", *twin(folder), "--out", run).code == 130
    assert len(journal(run / "write")) == 1
    assert small.isthmus("train", "instruct_data", *twin(folder), "--out", run).code == 4
    assert small.isthmus("train", "instruct_data", *twin(folder), "--out", run, "--resume").code == 0
    assert small.isthmus("train", "instruct_data", *twin(folder), "--out", whole).code == 0
    for name in ("conversations.json", "journal.jsonl"):
        assert (run / "write" / name).read_bytes() == (whole / "write" / name).read_bytes()


def test_a_recipe_of_another_model_is_refused(tmp_path: Path) -> None:
    for named, said in (("tiny/clip", "makes a dual_encoder"), ("tiny/scenes_language", "random weights")):
        out = ("--local", named, "--out", tmp_path / "out")
        ended = small.isthmus("curate", "instruct", "scenes", *out)
        assert (ended.code, said in ended.sentence) == (2, True)
    ended = small.isthmus(
        "curate", "instruct", "scenes", "--local", "instruct_data", "--out", tmp_path / "out"
    )
    assert (ended.code, "lmsys/vicuna-7b-v1.5" in ended.sentence) == (6, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages.write.kinds=[poem]", "stages.0.kinds.0: found 'poem', allowed: .*conversation"),
        ("stages.write.facts=photos.csv", "stages.0.facts: found 'photos.csv', allowed: scenes"),
        ("stages.write.instances=boxes.json", "stages.0.instances: found 'boxes.json', allowed: null"),
        ("stages.write.facts=nowhere.jsonl", "nowhere.jsonl cannot be read"),
        ("stages.write.model=writer", "stages.0.model: found 'writer', allowed: null"),
        ("stages.write.data=train", "data"),
        ("model.language={kind: llama, tokenizer: {kind: trained, data: words, vocabulary: 9}, width: 4, layers: 1, "
         "heads: 1, ffn: 4, context: 9}", "found a language model whose weights are random"),
        ("model=null", "neither model nor models"),
    ],
)  # fmt: skip
def test_mistakes_are_named(folder: Path, tmp_path: Path, change: str, said: str) -> None:
    ended = small.isthmus("train", "instruct_data", *twin(folder), change, "--out", tmp_path / "run")
    assert ended.code in (2, 3)
    assert re.search(said, ended.err), ended.err


def test_another_kind_of_model_cannot_write(tmp_path: Path) -> None:
    recipe = small.written(
        tmp_path / "dual.yaml", small.DUAL.replace("evaluation:", f"  - {{{STAGE}}}\nevaluation:")
    )
    ended = small.isthmus("train", recipe, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "stages.1.model: found a dual_encoder, allowed: a language_model" in ended.err


def test_a_rehearsal_writes_nothing(folder: Path, tmp_path: Path) -> None:
    said = small.isthmus(
        "train", "instruct_data", *twin(folder), "--dry-run", "--out", tmp_path / "run", "--json"
    ).json
    assert [(stage["name"], stage["steps"]) for stage in said["stages"]] == [("write", 0)]
    assert not (tmp_path / "run").exists()


def test_the_page_says_why_replies_were_dropped() -> None:
    counts = {
        "written": 8,
        "kept": 5,
        "kinds": {"detail": 5},
        "reasons": {"no JSON": 2, "unusable facts": 9, "duplicate": 1},
    }
    stages = [{"name": "train", "loss": 1.0}, {"name": "write", **counts}]
    (table,) = with_written(Results(), stages).metrics
    assert table.columns == ("kept", "no JSON", "duplicate")
    (row,) = table.rows
    assert (row.name, [one.value for one in row.estimates]) == ("8 replies", [5 / 8, 2 / 8, 1 / 8])
