"""Bad input through the command line: one sentence, the documented exit code, nothing lost."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import small
from PIL import Image

import isthmus.run.weights as weights
from isthmus.config.load import load_recipe
from isthmus.core.errors import DataError, Stopped
from isthmus.run.directory import RunDirectory


def _folder(path: Path, *, num: int = 60) -> Path:
    """Drawn scenes as files, each with its caption beside it."""
    path.mkdir()
    for number in range(num):
        Image.new("RGB", (32, 32), (4 * number, 100, 0)).save(path / f"{number:03d}.png")
        (path / f"{number:03d}.txt").write_text("a large red ring .")
    return path


def _recipe(path: Path, source: str, *, rows: str = "captions", language: str = small.OWN) -> Path:
    """One stage on a source of its own; the tokenizer is that of the built-in world."""
    data = (
        f"data:\n  mine: {source}\n  train: {{kind: scenes, split: train, num_samples: 8, image_size: 32}}\n"
    )
    stages = small.stage("align", "connector", rows, data="mine")
    return small.written(path, small.vision_language(language, stages=stages, data=data, evaluation=""))


def _trained(recipe: Path, run: Path) -> small.Outcome:
    return small.isthmus("train", recipe, "--out", run)


def test_a_bad_picture_in_training_is_skipped_counted_and_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures")
    (folder / "007.png").write_bytes((folder / "007.png").read_bytes()[:60])
    recipe = _recipe(tmp_path / "recipe.yaml", f"{{kind: folder, path: {folder}}}")
    recipe.write_text(recipe.read_text().replace("steps: 4", "steps: 8"))
    assert _trained(recipe, tmp_path / "run").code == 0
    report = json.loads((tmp_path / "run" / "align" / "data.json").read_text())
    assert report["skipped"] == 1
    assert "007.png" in report["named"][0]
    assert report["rows"] == 64


def test_a_start_that_is_refused_leaves_no_run(tmp_path: Path) -> None:
    recipe, run = (
        _recipe(tmp_path / "recipe.yaml", f"{{kind: folder, path: {tmp_path}/later}}"),
        tmp_path / "run",
    )
    for _ in range(2):
        assert _trained(recipe, run).code == 3
        assert [entry.name for entry in run.iterdir()] == ["run.lock"]
    _folder(tmp_path / "later")
    assert _trained(recipe, run).code == 0


def test_what_a_kill_left_of_a_recipe_and_hidden_files_are_in_nobodys_way(tmp_path: Path) -> None:
    recipe, run = (
        _recipe(tmp_path / "recipe.yml", f"{{kind: folder, path: {_folder(tmp_path / 'pictures')}}}"),
        tmp_path / "run",
    )
    run.mkdir()
    for name in ("environment.json", "recipe.sha256", "recipe.yaml.4711.tmp", ".keep"):
        (run / name).write_text("")
    assert _trained(recipe, run).code == 0


def test_a_stop_before_the_first_stage_is_no_refusal(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.make()
    recipe = load_recipe("tiny/scenes_vision")
    with pytest.raises(Stopped), directory.begun(recipe, resume=False):
        raise Stopped(signal.SIGINT, "stopped")
    assert directory.recipe_file.is_file()
    with pytest.raises(DataError), directory.begun(recipe, resume=True):
        raise DataError("a run that was there before is never withdrawn")
    assert directory.recipe_file.is_file()


def test_a_run_does_not_begin_among_other_files(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path / "recipe.yml", f"{{kind: folder, path: {_folder(tmp_path / 'pictures')}}}")
    refused = _trained(recipe, tmp_path)
    assert refused.code == 4
    assert "holds no run but pictures, recipe.yml; expected a new or empty directory" in refused.sentence


@pytest.mark.parametrize("how", ["missing", "truncated", "text"])
def test_too_many_bad_pictures_stop_training(tmp_path: Path, how: str) -> None:
    folder = _folder(tmp_path / "pictures")
    for number in range(20):
        file = folder / f"{number:03d}.png"
        match how:
            case "missing":
                file.unlink()
                os.symlink(folder / "nowhere.png", file)
            case "truncated":
                file.write_bytes(file.read_bytes()[:60])
            case "text":
                file.write_text("no picture")
    recipe = _recipe(tmp_path / "recipe.yaml", f"{{kind: folder, path: {folder}}}")
    refused = _trained(recipe, tmp_path / "run")
    assert refused.code == 3
    assert ".png" in refused.sentence
    assert "1%" in refused.sentence


def test_strange_but_whole_pictures_are_learnt_from(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", num=8)
    Image.new("RGB", (1, 1)).save(folder / "000.png")
    Image.new("I;16", (9, 5), 40_000).save(folder / "001.png")
    Image.new("RGB", (20_000, 250)).save(folder / "002.png")
    for name, picture in (("003", Image.new("CMYK", (9, 5))), ("004", Image.new("L", (5, 9)))):
        (folder / f"{name}.png").unlink()
        picture.save(folder / f"{name}.jpg")
    (folder / "005.png").unlink()
    Image.new("P", (9, 5)).save(folder / "005.gif", save_all=True, append_images=[Image.new("P", (9, 5), 9)])
    recipe = _recipe(tmp_path / "recipe.yaml", f"{{kind: folder, path: {folder}}}")
    assert _trained(recipe, tmp_path / "run").code == 0
    assert json.loads((tmp_path / "run" / "align" / "data.json").read_text())["skipped"] == 0


def test_two_markers_and_one_picture_are_refused_before_training(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", num=2)
    said = [{"from": "human", "value": "<image>\n<image>\nboth?"}, {"from": "gpt", "value": "yes"}]
    good = [{"from": "human", "value": "<image>\none?"}, {"from": "gpt", "value": "yes"}]
    rows = [{"image": "000.png", "conversations": turns} for turns in (good, said)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = f"{{kind: llava_json, file: {tmp_path / 'rows.json'}, images: {folder}}}"
    refused = _trained(_recipe(tmp_path / "recipe.yaml", source, rows="conversations"), tmp_path / "run")
    assert refused.code == 3
    for word in ("rows.json row 1", "2 <image>", "1 picture"):
        assert word in refused.sentence


def test_a_caption_longer_than_the_context_is_cut_and_counted(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", num=8)
    for file in sorted(folder.glob("*.txt"))[:4]:
        file.write_text("red " * 100)
    recipe = _recipe(tmp_path / "recipe.yaml", f"{{kind: folder, path: {folder}}}")
    assert _trained(recipe, tmp_path / "run").code == 0
    report = json.loads((tmp_path / "run" / "align" / "data.json").read_text())
    assert report["truncated_fraction"] == 0.5


def test_a_picture_that_does_not_fit_the_context_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", num=8)
    language = small.OWN.replace("context: 64", "context: 12")
    recipe = _recipe(tmp_path / "recipe.yaml", f"{{kind: folder, path: {folder}}}", language=language)
    refused = _trained(recipe, tmp_path / "run")
    assert refused.code == 3
    assert "context has 12" in refused.sentence


@pytest.mark.parametrize("what", ["folder", "rows", "shards", "one row"])
def test_an_empty_data_set_is_refused(tmp_path: Path, what: str) -> None:
    folder = _folder(tmp_path / "pictures", num=1 if what == "one row" else 0)
    (tmp_path / "rows.json").write_text("[]")
    source = {
        "rows": f"{{kind: llava_json, file: {tmp_path / 'rows.json'}, images: {folder}}}",
        "shards": f"{{kind: shards, files: '{folder}/*.tar'}}",
    }.get(what, f"{{kind: folder, path: {folder}}}")
    refused = _trained(_recipe(tmp_path / "recipe.yaml", source), tmp_path / "run")
    assert refused.code == 3
    assert refused.sentence


LIMITED = """
import resource, sys
from isthmus.cli.app import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, resource.RLIM_INFINITY))
main()
"""


def test_a_full_disk_while_saving_loses_nothing(runs: small.Runs, recipes: Path, tmp_path: Path) -> None:
    # The checkpoints of align have 9 kB and fit; those of instruct have 60 kB.
    process = small.apart(
        "train", recipes / "own.yaml", "--out", tmp_path / "run", code=LIMITED.format(bytes=30_000)
    )
    out, err = process.communicate(timeout=100)
    full = small.Outcome(process.returncode, out, err)
    assert full.code == 6, err
    assert "--resume" in full.sentence
    assert (tmp_path / "run" / "align" / "result.json").is_file()
    assert not list((tmp_path / "run").rglob("*.tmp-*"))
    assert small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "run", "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(runs["own"][0])


def test_a_full_disk_while_weights_are_handed_on_loses_nothing(
    runs: small.Runs, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(weights, "free_bytes", lambda directory: 10)
        full = _trained(recipes / "own.yaml", tmp_path / "run")
    assert full.code == 6
    assert "10 bytes are free" in full.sentence
    assert small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / "run", "--resume").code == 0
    assert small.final_hash(tmp_path / "run") == small.final_hash(runs["own"][0])


def test_ctrl_c_ends_the_process_with_130_after_saving(recipes: Path, tmp_path: Path) -> None:
    recipe = small.written(
        tmp_path / "long.yaml", (recipes / "own.yaml").read_text().replace("steps: 4", "steps: 5000")
    )
    process = small.apart("train", recipe, "--out", tmp_path / "run")
    metrics = tmp_path / "run" / "align" / "metrics.jsonl"
    end = time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    stopped = small.Outcome(process.returncode, out, err)
    assert stopped.code == 130, err
    assert "SIGINT" in stopped.sentence
    step = int(stopped.sentence.split("after step ")[1].split()[0])
    assert (tmp_path / "run" / "align" / "checkpoints" / f"step-{step}").is_dir()


def test_unknown_names_and_devices_are_refused(recipes: Path, tmp_path: Path) -> None:
    recipe = small.isthmus("train", "flickr8k/retreival", "--out", tmp_path / "run")
    assert (recipe.code, "did you mean 'flickr8k/retrieval'?" in recipe.sentence) == (2, True)
    file = small.isthmus("train", tmp_path / "nothing.yaml", "--out", tmp_path / "run")
    assert (file.code, "nothing.yaml" in file.sentence) == (2, True)
    for device, code in (("tpu", 2), ("mps" if not os.path.exists("/System") else "cuda", 6)):
        wrong = small.isthmus("train", recipes / "own.yaml", "--out", tmp_path / device, "--device", device)
        assert (wrong.code, device in wrong.sentence) == (code, True)


def test_a_mistake_in_a_recipe_is_named_before_anything_is_made(recipes: Path, tmp_path: Path) -> None:
    wrong = small.isthmus(
        "train", recipes / "own.yaml", "stages.align.trian=[vision]", "--out", tmp_path / "run"
    )
    assert wrong.code == 2
    assert "did you mean 'train'?" in wrong.err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_before_the_update(recipes: Path, tmp_path: Path) -> None:
    lr = "stages.align.optimizer.lr=1e38"
    stopped = small.isthmus("train", recipes / "own.yaml", lr, "--out", tmp_path / "run")
    assert stopped.code == 5
    assert "not finite" in stopped.sentence
    assert list((tmp_path / "run" / "align").glob("incident-*.json"))


def test_a_place_that_cannot_be_written_is_refused(recipes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        refused = _trained(recipes / "own.yaml", place)
        assert (refused.code, "--out" in refused.sentence) == (6, True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_encoder_is_no_checkpoint(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0no json at all")
    recipe = _recipe(tmp_path / "recipe.yaml", "{kind: scenes, split: train, num_samples: 8, image_size: 32}")
    text = recipe.read_text()
    assert text.count("kind: vit,") == 1
    recipe.write_text(text.replace("kind: vit,", f"kind: vit, weights: {encoder},"))
    refused = _trained(recipe, tmp_path / "run")
    assert refused.code == 4
    assert "model.safetensors is damaged" in refused.sentence


@pytest.mark.parametrize("key", ["model.weights", "model.vision.name"])
def test_a_folder_without_a_configuration_is_no_checkpoint(key: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", num=1)
    vision = f"model.vision={{kind: pretrained, name: {folder}}}"
    change = vision if key == "model.vision.name" else f"{key}={folder}"
    refused = small.isthmus("train", "tiny/llava", change, "--dry-run")
    assert refused.code == 4
    assert (
        f"{key}: '{folder}' cannot be read as a Hugging Face folder (it holds no config.json)"
        in refused.sentence
    )
