"""CapFilt end to end: as stages of a recipe and on a folder of pictures, stopped, shared between processes, and refused."""

import hashlib
import json
import shutil
import signal
import time
from pathlib import Path

import filtered
import pytest
import small
import torch

import isthmus
from isthmus.config.capfilt import Filtering
from isthmus.core.options import RunOptions
from isthmus.curation.capfilt.folder import CapfiltFolder, Share
from isthmus.data.collate import collate
from isthmus.data.samples import FileImage, Sample
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.shards import Shards
from isthmus.models.med import Med
from isthmus.run.capfilt import Curation
from isthmus.run.load import LoadedRun
from isthmus.run.matching import match_probabilities
from isthmus.run.progress import Counter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("capfilt")
    made = small.isthmus(
        "train", small.written(folder / "recipe.yaml", filtered.recipe()), "--out", folder / "run"
    )
    assert made.code == 0, made.err
    return folder / "run"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return filtered.photos(tmp_path / "photos")


def told(run: Path, *more: str | Path) -> tuple[str | Path, ...]:
    models = ("--filter", run, "--filter-model", "first", "--captioner", run, "--captioner-model", "first")
    return (*models, "--max-tokens", "6", "--threshold", "0.32", "--block-size", "4", *more)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "decisions.jsonl").read_text(encoding="utf-8").splitlines()]


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that a result consists of."""
    files = [*folder.glob("pairs-*.tar"), folder / "decisions.jsonl", folder / "summary.json"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_recipe_pretrains_filters_and_trains_a_new_model_on_the_result(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    names = [stage["name"] for stage in results["stages"]]
    assert names == ["pretrain", "captioner", "filter", "capfilt", "bootstrapped"]
    stage, table = results["stages"][3], lines(run / "capfilt")
    assert stage["written"] == len(table) == stage["kept"] + stage["dropped"]
    assert stage["kept"] == sum(line["kept"] for line in table) > 0
    assert {line["row"] for line in table} == set(range(60))
    pairs = Shards(str(run / "capfilt" / "pairs-*.tar"))
    kept: dict[str, list[str]] = {}
    for line in table:
        if line["kept"]:
            kept.setdefault(f"{line['row']:08d}", []).append(line["caption"].strip())
    assert {one.id: list(one.captions) for one in pairs} == kept
    assert "capfilt/report.html" in (run / "report.html").read_text(encoding="utf-8")
    assert "Kept and dropped captions" in (run / "capfilt" / "report.html").read_text(encoding="utf-8")
    opened = isthmus.load(run)
    assert isinstance(opened.answer(small.picture(run.parent / "a.png")), str)


def test_a_stage_stopped_between_blocks_goes_on_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    again = shutil.copytree(run, tmp_path / "run")
    for name in ("final", "bootstrapped"):
        shutil.rmtree(again / name)
    for file in (*(again / "capfilt").glob("*.*"), *(again / "capfilt" / "blocks").glob("00000[2-9].jsonl")):
        if file.name not in ("settings.json", "pairs-000000.tar", "pairs-000001.tar"):
            file.unlink()
    assert small.isthmus("train", again / "recipe.yaml", "--out", again, "--resume").code == 0
    assert content(again / "capfilt") == content(run / "capfilt")
    assert small.final_hash(again) == small.final_hash(run)


def test_show_and_dry_run_know_the_stage(run: Path) -> None:
    stages = small.isthmus("show", run, "--json").json["stages"]
    assert (stages[3]["name"], stages[3]["makes"], stages[3]["trainable"]) == ("capfilt", "pairs", 0)
    assert "train becomes pairs" in small.isthmus("show", run).out
    rehearsed = small.isthmus("train", run / "recipe.yaml", "--dry-run", "--json").json
    assert [stage["name"] for stage in rehearsed["stages"]] == [stage["name"] for stage in stages]


def test_a_folder_is_filtered_by_the_scores_of_its_filter_and_stays_as_it_is(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    before = {file.name: file.read_bytes() for file in photos.iterdir()}
    out = tmp_path / "out"
    said = small.isthmus("curate", "capfilt", photos, *told(run), "--out", out, "--json").json
    assert {file.name: file.read_bytes() for file in photos.iterdir()} == before
    table = lines(out)
    assert said["written"] == len(table) == said["kept"] + said["dropped"]
    assert said["unusable_pictures"] == 1
    assert all("4.png" in line["reason"] for line in table if line["id"] == "4.png")
    repeated = [line for line in table if line["id"] == "2.png" and line["caption"].isupper()]
    assert [line["reason"] for line in repeated] == ["repeats another caption"]
    assert any(line["from"] == "synthetic" for line in table)
    judge = isthmus.load(run, RunOptions(), model="first")
    scored = [line for line in table if line["score"] is not None]
    pairs = [(FileImage(path=photos / line["id"], name=line["id"]), line["caption"]) for line in scored]
    for line, probability in zip(scored, match_probabilities(judge, pairs), strict=True):
        assert line["score"] == pytest.approx(probability, abs=1e-5)
        if line["reason"] != "repeats another caption":
            assert line["kept"] == (line["score"] >= 0.32)


def test_two_processes_make_what_one_makes(run: Path, photos: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert small.isthmus("curate", "capfilt", photos, *told(run), "--out", one, "--json").json["whole"]
    first = small.isthmus(
        "curate", "capfilt", photos, *told(run), "--out", two, "--shard", "1/2", "--json"
    ).json
    assert not first["whole"]
    assert not (two / "decisions.jsonl").exists()
    assert small.isthmus(
        "curate", "capfilt", photos, *told(run), "--out", two, "--shard", "2/2", "--json"
    ).json["whole"]
    assert content(two) == content(one)


def test_a_run_in_a_folder_of_odd_name_reads_its_pairs_again(tmp_path: Path) -> None:
    """Brackets and braces would be a pattern; `$` and braces a variable."""
    run = tmp_path / "run[1]{a,b}${x}"
    recipe = small.written(tmp_path / "recipe.yaml", filtered.recipe())
    made = small.isthmus("train", recipe, "--out", run)
    assert made.code == 0, made.err
    kept = [line for line in lines(run / "capfilt") if line["kept"]]
    (step, *_) = (run / "bootstrapped" / "metrics.jsonl").read_text().splitlines()
    assert kept
    assert json.loads(step)["rows"] == 8


def test_progress_counts_the_pictures_of_the_share_and_asks_for_each_block_once(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []
    asked: list[int] = []
    is_done = CapfiltFolder.is_done

    def count(folder: CapfiltFolder, block: int) -> bool:
        asked.append(block)
        return is_done(folder, block)

    monkeypatch.setattr(Counter, "show", lambda self, num, _: shown.append((num, self._total)))
    command = ("curate", "capfilt", photos, *told(run), "--out", tmp_path / "out", "--block-size", "1")
    assert small.isthmus(*command, "--shard", "1/2").code == 0
    assert shown == [(num, 5) for num in range(1, 6)]
    shown.clear()
    monkeypatch.setattr(CapfiltFolder, "is_done", count)
    curation = Curation(
        captioner=None,
        judge=isthmus.load(run, RunOptions(), model="first"),
        filtering=Filtering(captions=0, block_size=1),
        seed=0,
    )
    source = Folder(photos, table="table.csv")
    folder = CapfiltFolder(tmp_path / "alone", curation.plan.num_blocks(len(source)))
    folder.open(curation.settings, share=Share(), resume=False)
    asked.clear()
    curation.run(source, folder, share=Share(), check=lambda: None, options=RunOptions())
    assert asked == list(range(10))
    assert shown == [(num, 10) for num in range(1, 11)]


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(run: Path, photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = ("curate", "capfilt", photos, *told(run), "--block-size", "1")
    assert small.isthmus(*command, "--out", whole).code == 0
    process = small.apart(*command, "--out", out)
    while process.poll() is None and len(list((out / "blocks").glob("*.jsonl"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert small.isthmus(*command, "--out", out, "--resume").code == 0
    assert content(out) == content(whole)


def test_blip2_writes_ten_and_keeps_the_two_most_similar(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("--variant", "blip2", "--max-tokens", "6", "--block-size", "8")
    models = told(run)[:8]
    assert (
        small.isthmus("curate", "capfilt", photos, *models, *given, "--out", out, "--json").json["kept"] > 0
    )
    judge = isthmus.load(run, RunOptions(), model="first")
    rows: dict[int, list[dict]] = {}
    for line in lines(out):
        rows.setdefault(line["row"], []).append(line)
    for found in rows.values():
        kept = [line["score"] for line in found if line["kept"]]
        lost = [line["score"] for line in found if line["reason"] == "not among the best"]
        written = [line for line in found if line["from"] == "synthetic"]
        assert len(written) == (0 if found[0]["id"] == "4.png" else 10)  # the broken picture
        assert len(kept) <= 2
        assert not lost or min(kept) >= max(lost)
        for line in [one for one in written if one["score"] is not None][:1]:
            assert line["score"] == pytest.approx(
                cosine(judge, photos / line["id"], line["caption"]), abs=1e-5
            )


def cosine(judge: LoadedRun, photo: Path, caption: str) -> float:
    """Of a picture and a text, by the call that training uses."""
    image = FileImage(path=photo, name=photo.name)
    sample = Sample(id="a", origin="a", images=(image,), captions=(caption,))
    model, processor = judge.workshop.model, judge.workshop.processor
    assert isinstance(model, Med)
    with torch.no_grad():
        views, vectors = model(
            collate([processor.row(sample, rows="captions", choice=0)], pad_id=processor.pad_id)
        )
    return float(views[0] @ vectors[0])


def test_what_is_wrong_is_one_sentence(run: Path, runs: small.Runs, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dual, writer = runs["dual"][0], runs["captions"][0]

    def refused(code: int, *arguments: str | Path) -> str:
        ran = small.isthmus("curate", "capfilt", *arguments)
        assert ran.code == code, ran.err
        return ran.sentence

    assert "--filter is missing" in refused(2, photos, "--out", out)
    assert "does not match pictures with texts" in refused(2, photos, "--filter", writer, "--out", out)
    assert "writes no captions" in refused(2, photos, *told(run)[:4], "--captioner", dual, "--out", out)
    assert "there is no captioner" in refused(2, photos, *told(run)[:4], "--out", out)
    assert "expected i/n" in refused(2, photos, *told(run), "--out", out, "--shard", "3/2")
    assert "--threshold is nan" in refused(2, photos, *told(run), "--out", out, "--threshold", "nan")
    assert "which is only read" in refused(2, photos, *told(run), "--out", photos / "out")
    assert "neither a folder" in refused(3, tmp_path / "nothing", *told(run), "--out", out)
    assert not out.exists()
    assert "none of" in refused(3, photos, *told(run), "--threshold", "1.1", "--out", out)
    assert "go on with --resume, or choose another --out" in refused(4, photos, *told(run), "--out", out)
    assert "threshold = 1.1, and now it is 0.32" in refused(4, photos, *told(run), "--out", out, "--resume")


@pytest.mark.parametrize(
    ("capfilt", "says"),
    [
        (
            "captioner: captioner, filter: bootstrapped, data: train, makes: pairs",
            "'bootstrapped', allowed: an earlier",
        ),
        ("filter: filter, data: train, makes: pairs", "captions: 0 to filter alone"),
        ("captioner: captioner, filter: filter, data: nothing, makes: pairs", "'nothing'"),
        ("captioner: captioner, filter: filter, data: train, makes: val", "'val' again"),
        ("captioner: captioner, filter: filter, data: train, makes: others", "'pairs'"),
    ],
)
def test_a_recipe_whose_stage_does_not_fit_is_refused(capfilt: str, says: str, tmp_path: Path) -> None:
    ran = small.isthmus("show", small.written(tmp_path / "recipe.yaml", filtered.recipe(capfilt)))
    assert ran.code == 2
    assert says in ran.err
