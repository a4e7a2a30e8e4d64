"""`isthmus curate capfilt` from end to end: what it writes, that parts and stops change nothing, what it refuses."""

import hashlib
import json
from pathlib import Path

import pytest
import small

from isthmus.data.samples import Source
from isthmus.data.sources.derived import Recaptioned
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.scenes import SceneSource
from isthmus.run.curate_capfilt import BLOCK, open_data

MED = (
    f"name: small-med\n{small.DATA}model:\n  kind: med\n  vision: {small.VISION}\n"
    "  text: {tokenizer: {kind: trained, data: train, algorithm: word, vocabulary: 200}, context: 24, positions: 24,\n"
    "    width: 16, layers: 1, heads: 2, ffn: 32, dropout: 0.0}\n  pool: mean\n  embed_dim: 8\nstages:\n"
    + small.stage(
        "pretrain",
        "text, encoder, decoder, heads",
        "captions",
        objective="{contrastive: 1.0, matching: 1.0, captioning: 1.0}",
    )
    + "evaluation: {task: retrieval, val: val, test: test}\n"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("med")
    recipe = small.written(folder / "med.yaml", MED)
    trained = small.isthmus("train", recipe, "--out", folder / "run")
    assert trained.code == 0, trained.err
    return folder / "run"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one whole block and six more pictures, one of which is broken."""
    folder = tmp_path_factory.mktemp("photos")
    scenes = SceneSource(split="train", num_samples=BLOCK + 6, image_size=32)
    table = ["image,caption"]
    for at in range(BLOCK + 6):
        sample = scenes.sample(at)
        sample.images[0].picture().save(folder / f"{at:03d}.png")
        table += [f'{at:03d}.png,"{caption}"' for caption in sample.captions[:2]]
    (folder / "table.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    (folder / "007.png").write_bytes(b"no picture")
    return folder


def hashed(folder: Path) -> str:
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    return hashlib.sha256(b"".join(one.name.encode() + one.read_bytes() for one in files)).hexdigest()


def curate(photos: Path, run: Path, out: Path, *more: str) -> small.Outcome:
    return small.isthmus(
        "curate", "capfilt", photos, "--table", "table.csv", "--captioner", run, "--filter", run, "--out", out,
        "--threshold", "0", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(photos: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("capfilt") / "out"
    before = hashed(photos), hashed(run)
    said = curate(photos, run, out, "--json").json
    assert (hashed(photos), hashed(run)) == before
    assert said["kept"] + said["dropped"] == said["origins"]["web"]["captions"] + said["written"]
    assert said["pictures"] == BLOCK + 5
    assert ["007.png" in reason for reason in said["skipped"]] == [True]
    return out


def test_every_caption_is_listed_and_what_is_kept_is_a_source(photos: Path, whole: Path) -> None:
    decisions = [json.loads(line) for line in (whole / "decisions.jsonl").read_text().splitlines()]
    source: Source = Folder(photos, table="table.csv")
    for index in (0, 6, 8, BLOCK + 5):
        own = [one for one in decisions if one["index"] == index]
        assert [one["caption"] for one in own if one["origin"] == "web"] == list(
            source.sample(index).captions
        )
        assert sum(one["origin"] == "synthetic" for one in own) == 1
    assert all(one["kept"] == (one["dropped"] is None) for one in decisions)
    assert all(one["kept"] == (one["score"] is not None and one["score"] >= 0) for one in decisions)
    kept = Recaptioned(source, whole / "captions.jsonl")
    assert sum(map(kept.num_captions, range(len(kept)))) == sum(one["kept"] for one in decisions)
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "captions kept" in page
    assert source.sample(0).captions[0] in page


def outputs(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in ("decisions.jsonl", "captions.jsonl")]


def test_two_processes_write_what_one_writes(photos: Path, run: Path, whole: Path, tmp_path: Path) -> None:
    first = curate(photos, run, tmp_path / "out", "--part", "2/2", "--json").json
    assert first == first | {"complete": False, "kept": 0}
    assert not (tmp_path / "out" / "captions.jsonl").exists()
    assert curate(photos, run, tmp_path / "out", "--part", "1/2", "--json").json["complete"]
    assert outputs(tmp_path / "out") == outputs(whole)


def test_a_run_that_was_stopped_goes_on_to_the_same(
    photos: Path, run: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert curate(photos, run, out).code == 0
    for name in ("decisions.jsonl", "captions.jsonl", "summary.json", "report.html", "blocks/000001.json"):
        (out / name).unlink()
    untouched = (out / "blocks" / "000000.json").stat().st_mtime_ns
    refused = curate(photos, run, out)
    assert refused.code == 4
    assert "go on with --resume" in refused.sentence
    assert curate(photos, run, out, "--resume").code == 0
    assert outputs(out) == outputs(whole)
    assert (out / "blocks" / "000000.json").stat().st_mtime_ns == untouched
    other = curate(photos, run, out, "--resume", "--captions", "2")
    assert other.code == 4
    assert "was begun with another captions" in other.sentence


def test_the_best_few_are_kept_by_rank(photos: Path, run: Path, tmp_path: Path) -> None:
    said = curate(photos, run, tmp_path / "out", "--keep", "2", "--captions", "3", "--json").json
    assert said["kept"] <= 2 * said["pictures"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    assert {len(row["web"]) + len(row["synthetic"]) for row in rows} <= {1, 2}
    assert set(said["reasons"]) <= {"empty", "repeated", "not among the best"}


def test_what_cannot_be_done_is_refused_in_one_sentence(
    photos: Path, run: Path, runs: small.Runs, tmp_path: Path
) -> None:
    table = ("--table", "table.csv")
    dual = runs["dual"][0]
    cases: tuple[tuple[tuple[str | Path, ...], int, str], ...] = (
        ((photos, dual, run, *table), 2, "writes no text"),
        ((photos, run, dual, *table), 2, "does not match pictures"),
        (("nowhere", run, run), 2, "DATA is 'nowhere'"),
        (("tiny/blip:none", run, run), 2, "has no source 'none'"),
        ((photos, tmp_path, run, *table), 4, "is no run directory"),
        ((photos, run, run, *table, "--part", "3/2"), 2, "--part is '3/2'"),
        ((photos, run, run, *table, "--top-p", "1.5"), 2, "--top-p is 1.5"),
        ((photos, run, run, *table, "--threshold", "1"), 3, "none of"),
    )
    for number, ((data, captioner, judge, *more), code, words) in enumerate(cases):
        out = tmp_path / str(number)
        outcome = small.isthmus(
            "curate", "capfilt", data, "--captioner", captioner, "--filter", judge, "--out", out, *more
        )
        assert outcome.code == code, outcome.err
        assert words in outcome.sentence
        assert out.exists() is (code == 3)
    (tmp_path / "file").write_text("x")
    assert curate(photos, run, tmp_path / "file").code == 4


def test_a_recipes_source_can_be_named() -> None:
    assert len(open_data("tiny/blip:test", None)) == 300
