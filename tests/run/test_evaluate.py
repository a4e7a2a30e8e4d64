"""`isthmus evaluate`: each task through the command, and the bookkeeping of the controls with a model that is known."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from isthmus.data.rows import RowKind
from isthmus.data.samples import Sample, Source
from isthmus.data.sources.scenes import SceneSource
from isthmus.run.load import Answer, LoadedRun, load
from isthmus.run.pictures import with_controls
from isthmus.run.questions import best_blind, judge_answers

CONTROLS = ("real", "blank", "shuffled", "wrong")


@pytest.fixture(scope="module")
def loaded(runs: small.Runs) -> LoadedRun:
    return load(runs["own"][0], small.OPTIONS)


@pytest.fixture(scope="module")
def test_source(loaded: LoadedRun) -> Source:
    return loaded.workshop.source("test")


def test_questions_are_judged_with_controls_and_intervals(runs: small.Runs) -> None:
    run, _ = runs["own"]
    said = small.isthmus("evaluate", run, "--split", "val", "--json").json
    assert {"metrics", "controls", "n"} <= set(said)
    assert said["n"] == 20
    for name in CONTROLS:
        shares = said["controls"]["answers"][name]
        low, high = shares["interval"]
        assert 0 <= low <= shares["accuracy"] <= high <= 1
    assert isinstance(said["controls"]["verdict"], str)
    assert said["metrics"]["accuracy"] == said["controls"]["answers"]["real"]
    assert sum(one["real"]["n"] for one in said["kinds"].values()) == 20
    again = small.isthmus("evaluate", run, "--split", "val", "--json").json
    assert again == said
    few = small.isthmus("evaluate", run, "--split", "val", "--limit", "7", "--json").json
    assert (few["n"], few["of"]) == (7, 20)
    assert "best_picture_blind" in said["controls"] and "best_picture_blind" not in few["controls"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "limited to 7 of 20 rows" in page and "Measure on the test set." in page
    lines = small.isthmus("evaluate", run, "--split", "val").out.splitlines()
    assert lines[-1] == said["controls"]["verdict"]
    assert max(len(line) for line in lines[:-1]) < 80


def test_results_of_both_splits_stay_side_by_side(runs: small.Runs) -> None:
    run, _ = runs["own"]
    for split in ("val", "test"):
        assert small.isthmus("evaluate", run, "--split", split, "--limit", "8").code == 0
    measured = load(run, small.OPTIONS).directory.read_results()
    assert set(measured["evaluation"]) >= {"val", "test"}
    assert measured["stages"]
    assert "<html" in (run / "report.html").read_text().lower()


@pytest.mark.skipif(shutil.which("java") is None, reason="the official caption scorer's tokenizer needs java")
@pytest.mark.timeout(120)
def test_how_a_run_is_judged_can_be_changed_afterwards(runs: small.Runs) -> None:
    run, _ = runs["own"]
    shorter = ["evaluation.decoding.max_new_tokens=1", "evaluation.test=val"]
    said = small.isthmus("evaluate", run, *shorter, "--json").json
    assert said["changes"] == shorter
    assert said["n"] == 20
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert all(len(row["answer"].split()) <= 1 for row in results["examples"])
    refused = small.isthmus("evaluate", run, "seed=4")
    assert refused.code == 2
    assert "give keys below evaluation" in refused.sentence
    assert small.isthmus("evaluate", run, "evaluation.decoding.beam=2").code == 2
    # The run itself is as it was.
    assert "changes" not in small.isthmus("evaluate", run, "--json").json


def test_captions_are_judged_by_the_official_scores(runs: small.Runs) -> None:
    said = small.isthmus("evaluate", runs["captions"][0], "--limit", "12", "--json").json
    assert said["n"] == 12
    for scores in (said["metrics"], *(said["controls"][name] for name in CONTROLS[1:])):
        assert {"cider", "bleu_4", "rouge_l"} <= set(scores)
        assert scores["cider"]["low"] <= scores["cider"]["value"] <= scores["cider"]["high"]
    assert set(said["against_all_but_first_reference"]) == {"model", "human_first_caption"}


def test_retrieval_is_judged_both_ways(runs: small.Runs) -> None:
    said = small.isthmus("evaluate", runs["dual"][0], "--json").json
    assert said["n"] == 24
    assert said["metrics"].keys() == said["controls"]["shuffled"].keys()
    assert said["metrics"]
    scenes = SceneSource(split="test", num_samples=24, image_size=32)
    pairs = [(row, caption) for row in range(24) for caption in scenes.sample(row).captions]
    shared = sum(any(words == own and row != at for row, words in pairs) for at, own in pairs)
    assert said["equal_captions"] == shared / len(pairs)


def test_captions_that_are_equal_are_said_to_be(runs: small.Runs, tmp_path: Path) -> None:
    run, folder = runs["dual"][0], _folder(tmp_path / "twins", good=12, bad=0)
    for number in (3, 4, 7):
        (folder / f"{number:03d}.txt").write_text("a green ring")
    said = small.isthmus("evaluate", run, "--data", folder)
    assert "25.0% of the captions are also another picture's; a tie counts as a miss" in said.out
    assert "25.0% of the captions are also another picture" in (run / "report.html").read_text()
    assert small.isthmus("evaluate", run, "--data", folder, "--json").json["equal_captions"] == 0.25


def test_what_cannot_be_judged_is_refused(runs: small.Runs) -> None:
    nothing = small.isthmus("evaluate", runs["alone"][0])
    assert (nothing.code, "evaluation" in nothing.sentence) == (2, True)
    unknown = small.isthmus("evaluate", runs["own"][0], "--data", "vall")
    assert (unknown.code, "vall" in unknown.sentence) == (2, True)
    missing = small.isthmus("evaluate", runs["own"][0], "--data", "nowhere/rows.json")
    assert (missing.code, "nowhere" in missing.sentence) == (3, True)


class Oracle:
    """A model that knows the right answer to every question, but only if it sees the right picture."""

    def __init__(self, source: Source) -> None:
        samples = [source.sample(index) for index in range(len(source))]
        self.answer_of = {(s.images[0].digest(), s.id): s.answers[0] for s in samples}

    def write(self, loaded: LoadedRun, samples: list[Sample], *, rows: RowKind) -> list[Answer]:
        """Stands in for `LoadedRun.write`."""
        del loaded
        assert rows == "questions"
        texts = [self.answer_of.get((s.images[0].digest(), s.id), "nothing") for s in samples]
        return [Answer(text=text, num_tokens=1) for text in texts]


def test_a_model_that_looks_is_right_with_its_own_pictures_only(
    loaded: LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SceneSource(split="test", num_samples=60, image_size=32)
    oracle = Oracle(source)

    def write(self: LoadedRun, samples: list[Sample], *, rows: RowKind) -> list[Answer]:
        return oracle.write(self, samples, rows=rows)

    monkeypatch.setattr(LoadedRun, "write", write)
    judged = judge_answers(loaded, source, seed=0)
    shares = {name: judged["controls"]["answers"][name]["accuracy"] for name in CONTROLS}
    assert shares == {"real": 1.0, "blank": 0.0, "shuffled": 0.0, "wrong": 0.0}
    assert judged["controls"]["verdict"].endswith(": it looks at the picture")


def test_a_model_that_does_not_look_is_found_out(
    loaded: LoadedRun, test_source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [test_source.sample(index) for index in range(len(test_source))]
    answers = {sample.id: sample.answers[0] for sample in samples}

    def write(self: LoadedRun, samples: list[Sample], *, rows: RowKind) -> list[Answer]:
        del self, rows
        return [Answer(text=answers[sample.id], num_tokens=1) for sample in samples]

    monkeypatch.setattr(LoadedRun, "write", write)
    judged = judge_answers(loaded, test_source, seed=0)
    assert {judged["controls"]["answers"][name]["accuracy"] for name in CONTROLS} == {1.0}
    assert not judged["controls"]["verdict"].endswith(": it looks at the picture")
    assert judged["controls"]["best_picture_blind"] == best_blind(
        [sample.question or "" for sample in samples], [sample.answers[0] for sample in samples]
    )


def test_the_best_blind_answerer_by_hand() -> None:
    # "a": 2 of 3 by the commonest answer; "b": 1 of 2.
    assert best_blind(["a", "a", "a", "b", "b"], ["x", "x", "y", "x", "z"]) == pytest.approx(3 / 5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_row_keeps_its_picture_and_blank_is_nothing(
    loaded: LoadedRun, test_source: Source, seed: int
) -> None:
    sources, ids = with_controls(loaded, test_source, seed=seed)
    processor: Any = loaded.workshop.processor
    for name in ("shuffled", "wrong"):
        given = [sources[name].sample(row) for row in range(len(test_source))]
        assert all(sample.images[0].digest() != ids[row] for row, sample in enumerate(given))
        assert [sample.question for sample in given] == [
            test_source.sample(row).question for row in range(len(test_source))
        ]
    assert sorted(sources["shuffled"].sample(row).images[0].digest() for row in range(len(ids))) == sorted(
        ids
    )
    blank = processor.pictures(sources["blank"].sample(0).images[0]).pixels
    # Half of one step of 1/255, divided by the standard deviation of 0.5.
    torch.testing.assert_close(blank, torch.zeros_like(blank), rtol=0, atol=1 / 255 + 1e-6)
    assert blank.shape == (3, 32, 32)


def test_a_wrong_picture_is_the_most_similar_other_one(loaded: LoadedRun, test_source: Source) -> None:
    sources, ids = with_controls(loaded, test_source, seed=0)
    processor: Any = loaded.workshop.processor
    model: Any = loaded.workshop.model
    pixels = torch.stack([processor.pictures(test_source.sample(row).images[0]).pixels for row in range(24)])
    vectors = torch.nn.functional.normalize(model.vision(pixels).mean(dim=1).double(), dim=1)
    likeness = vectors @ vectors.T
    for row in range(24):
        others = [other for other in range(24) if ids[other] != ids[row]]
        best = max(float(likeness[row, other]) for other in others)
        chosen = ids.index(sources["wrong"].sample(row).images[0].digest())
        assert float(likeness[row, chosen]) == pytest.approx(best, abs=1e-6)


def test_questions_without_pictures_or_answers_are_refused(runs: small.Runs, tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "a"}]}
        for i in range(4)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    refused = small.isthmus("evaluate", runs["own"][0], "--data", tmp_path / "rows.json")
    assert refused.code == 3
    for row in rows:
        row["conversations"][0]["value"] = "<image>"
        row["image"] = small.picture(tmp_path / f"{row['id']}.png", index=int(row["id"])).name
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    refused = small.isthmus("evaluate", runs["own"][0], "--data", tmp_path / "rows.json")
    assert refused.code == 3
    assert "question" in refused.sentence


def test_pictures_of_a_llava_file_may_lie_elsewhere(runs: small.Runs, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = [
        {
            "id": str(i),
            "image": small.picture(tmp_path / "photos" / f"{i}.png", index=i).name,
            "conversations": [
                {"from": "human", "value": "<image>\nwhat is red"},
                {"from": "gpt", "value": "a ring"},
            ],
        }
        for i in range(6)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    asked = ("evaluate", runs["own"][0], "--data", tmp_path / "rows.json")
    assert small.isthmus(*asked).code == 3
    assert small.isthmus(*asked, "--images", tmp_path / "photos", "--json").json["n"] == 6
    refused = small.isthmus("evaluate", runs["own"][0], "--images", tmp_path / "photos")
    assert (refused.code, "LLaVA JSON" in refused.sentence) == (2, True)


def _folder(path: Path, *, good: int, bad: int) -> Path:
    """Pictures with captions, the first `bad` of them cut off."""
    path.mkdir()
    for number in range(good + bad):
        file = small.picture(path / f"{number:03d}.png", index=number)
        if number < bad:
            file.write_bytes(file.read_bytes()[:100])
        file.with_suffix(".txt").write_text(f"a red ring {number}")
    return path


def test_a_bad_picture_is_left_out_and_named_and_many_stop(runs: small.Runs, tmp_path: Path) -> None:
    run, _ = runs["dual"]
    one = small.isthmus("evaluate", run, "--data", _folder(tmp_path / "one", good=11, bad=1), "--json").json
    assert one["n"] == 11
    assert len(one["skipped"]) == 1
    assert "000.png" in one["skipped"][0]
    examples = load(run, small.OPTIONS).directory.read_results()["examples"]
    assert {example["row"] for example in examples} <= set(range(1, 12))
    many = small.isthmus("evaluate", run, "--data", _folder(tmp_path / "many", good=10, bad=2))
    assert many.code == 3
    assert "001.png" in many.sentence
