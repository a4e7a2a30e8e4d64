"""`isthmus ask`: the stored template and decoding are used, and what people type stays text."""

import json
from pathlib import Path

import pytest
import small
import torch
from PIL import Image

from isthmus.core.options import RunOptions
from isthmus.data.collate import collate
from isthmus.data.samples import Sample
from isthmus.data.templates import ChatTemplate
from isthmus.generation.decode import Decoding
from isthmus.run.load import Answer, LoadedRun, load, picture_of


@pytest.fixture(scope="module")
def loaded(runs: small.Runs) -> LoadedRun:
    return load(runs["own"][0], small.OPTIONS)


def _ids(loaded: LoadedRun, image: Path, question: str) -> list[int]:
    """The ids a question becomes, as the model gets them."""
    picture = picture_of(image)
    sample = Sample(id="a", origin="a", images=(picture,), question=question, answers=("",))
    row = loaded.workshop.processor.row(sample, rows="questions", choice=0, purpose="prompt")
    batch = collate([row], pad_id=loaded.workshop.processor.pad_id, side="left")
    assert batch.token_ids is not None
    return batch.token_ids[0].tolist()


def test_the_json_has_answer_tokens_and_seconds(runs: small.Runs, tmp_path: Path) -> None:
    image = small.picture(tmp_path / "a.png")
    said = small.isthmus("ask", runs["own"][0], image, "how many rings are there ?", "--json").json
    assert set(said) >= {"answer", "tokens", "seconds"}
    assert isinstance(said["answer"], str)
    assert 0 <= said["tokens"] <= 3
    caption = small.isthmus("ask", runs["captions"][0], image, "--json").json
    assert caption["tokens"] <= 12


def test_a_model_without_words_cannot_be_asked(runs: small.Runs, tmp_path: Path) -> None:
    for name in ("dual", "alone"):
        refused = small.isthmus("ask", runs[name][0], small.picture(tmp_path / "a.png"), "what ?")
        assert refused.code == 2
        assert "writes no text" in refused.sentence


@pytest.mark.parametrize(
    ("image", "question", "code", "says"),
    [
        ("a.png", "", 2, "the question is empty"),
        ("a.png", "what \udcff ?", 2, "no UTF-8 text"),
        ("b.png", "what ?", 3, "b.png does not exist; expected a file with a picture"),
        (".", "what ?", 3, " is a folder; expected a file with a picture"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    runs: small.Runs, tmp_path: Path, image: str, question: str, code: int, says: str
) -> None:
    small.picture(tmp_path / "a.png")
    refused = small.isthmus("ask", runs["own"][0], tmp_path / image, question)
    assert (refused.code, says in refused.sentence) == (code, True), refused.err


@pytest.mark.parametrize("typed", ["</s>", "<image>", "<pad>", "<s>", "<unk>"])
def test_special_tokens_that_somebody_types_stay_text(loaded: LoadedRun, tmp_path: Path, typed: str) -> None:
    image = small.picture(tmp_path / "a.png")
    tokenizer = loaded.workshop.tokenizer
    plain, with_marker = _ids(loaded, image, "what is red"), _ids(loaded, image, f"what {typed} is red")
    model = loaded.workshop.model
    pictures = with_marker.count(model.placeholder_id)
    assert pictures == plain.count(model.placeholder_id) == 16
    for special in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        assert with_marker.count(special) == plain.count(special)
    # A word tokenizer knows no such word, which is text nevertheless: one unknown word more.
    assert len(with_marker) == len(plain) + 1
    assert with_marker.count(tokenizer.unk_token_id) == plain.count(tokenizer.unk_token_id) + 1
    assert isinstance(loaded.answer(image, f"what {typed} is red"), str)


def test_the_answer_is_that_of_the_template_stored_with_the_run(
    runs: small.Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = runs["own"]
    stored = ChatTemplate.from_json((run / "final" / "template.json").read_text())
    assert stored.end == "</s>"
    image = small.picture(tmp_path / "a.png")
    before = _ids(load(run, small.OPTIONS), image, "what is red")
    # A later version of the package may give the template of this name other pieces.
    changed = {"plain": ChatTemplate(name="plain", start="a large red ring", end="circle")}
    monkeypatch.setattr("isthmus.data.templates.TEMPLATES", changed)
    again = load(run, small.OPTIONS)
    assert _ids(again, image, "what is red") == before
    assert again.workshop.template == stored


def test_the_decoding_of_the_recipe_is_used(runs: small.Runs, loaded: LoadedRun) -> None:
    assert loaded.decoding.max_new_tokens == 3
    assert load(runs["captions"][0], small.OPTIONS).decoding.max_new_tokens == 12


def test_words_that_the_model_never_read_are_named(
    loaded: LoadedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = picture_of(small.picture(tmp_path / "a.png"))
    loaded.ask(picture, "what is red")
    assert not caplog.text
    loaded.ask(picture, "quelle est red")
    assert "never learnt the words quelle, est;" in caplog.text


def test_room_that_is_set_for_answers_does_not_cut_captions_off(
    loaded: LoadedRun, runs: small.Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = []

    def write(self: LoadedRun, samples: list[Sample], *, rows: str, decoding: Decoding) -> list[Answer]:
        del self, samples
        rooms.append((rows, decoding.max_new_tokens))
        return [Answer(text="", num_tokens=0)]

    monkeypatch.setattr(LoadedRun, "write", write)
    picture = picture_of(small.picture(tmp_path / "a.png"))
    loaded.ask(picture, "what is red")
    loaded.ask(picture, None)
    load(runs["captions"][0], small.OPTIONS).ask(picture, None)
    assert rooms == [("questions", 3), ("captions", 32), ("captions", 12)]


def test_a_damaged_template_or_tokenizer_is_refused(recipes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert small.isthmus("train", recipes / "own.yaml", "--out", run).code == 0
    image = small.picture(tmp_path / "a.png")
    (run / "final" / "template.json").write_text(json.dumps({"name": "plain"}))
    refused = small.isthmus("ask", run, image)
    assert (refused.code, "template.json" in refused.sentence) == (4, True)
    (run / "final" / "tokenizer.json").unlink()
    refused = small.isthmus("ask", run, image)
    assert (refused.code, "tokenizer.json" in refused.sentence) == (4, True)


@pytest.mark.parametrize("bits", ["flipped", "cut", "text", "no weights"])
def test_damaged_weights_are_refused(recipes: Path, tmp_path: Path, bits: str) -> None:
    run = tmp_path / "run"
    assert small.isthmus("train", recipes / "own.yaml", "--out", run).code == 0
    file = run / "final" / "model.safetensors"
    data = bytearray(file.read_bytes())
    match bits:
        case "flipped":
            data[-7] ^= 64
        case "cut":
            data = data[: len(data) // 2]
        case "text":
            data = bytearray(b"<html>not found</html>")
    file.write_bytes(data)
    if bits == "no weights":
        file.unlink()
    refused = small.isthmus("ask", run, small.picture(tmp_path / "a.png"))
    assert refused.code == 4
    assert "model.safetensors" in refused.sentence


def test_a_directory_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    image = small.picture(tmp_path / "a.png")
    refused = small.isthmus("ask", tmp_path, image)
    assert refused.code == 4
    assert "isthmus train" in refused.sentence


GOOD = {
    "1x1.png": ("RGB", (1, 1), {}),
    "cmyk.jpg": ("CMYK", (40, 30), {}),
    "16bit.png": ("I;16", (40, 30), {}),
    "animated.gif": ("P", (40, 30), {"save_all": True, "append_images": [Image.new("P", (40, 30), 3)]}),
    "wide.png": ("RGB", (20_000, 250), {}),
}


@pytest.mark.parametrize("name", GOOD)
def test_strange_pictures_are_answered(loaded: LoadedRun, tmp_path: Path, name: str) -> None:
    mode, size, options = GOOD[name]
    Image.new(mode, size, 1).save(tmp_path / name, **options)
    assert isinstance(loaded.answer(tmp_path / name, "what is red"), str)


BAD = {
    "missing.png": None,
    "truncated.png": "half",
    "text.jpg": b"this is no picture",
    "empty.png": b"",
    "strip.png": (20_000, 10),
    "folder.png": "folder",
    "nan.tiff": "floats",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_named_in_one_sentence(runs: small.Runs, tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, BAD[name]
    match content:
        case bytes():
            path.write_bytes(content)
        case (int(), int()):
            Image.new("RGB", content).save(path)
        case "half":
            whole = small.picture(path).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        case "floats":
            Image.new("F", (40, 30), float("nan")).save(path)
        case "folder":
            path.mkdir()
    refused = small.isthmus("ask", runs["own"][0], path, "what is red")
    assert refused.code == 3
    assert name in refused.sentence
    assert not refused.out


def test_a_question_longer_than_the_context_is_refused(runs: small.Runs, tmp_path: Path) -> None:
    refused = small.isthmus("ask", runs["own"][0], small.picture(tmp_path / "a.png"), "red " * 80)
    assert refused.code == 3
    assert "context has 64" in refused.sentence


def test_precision_and_seed_of_the_command_reach_the_model(runs: small.Runs, tmp_path: Path) -> None:
    image = picture_of(small.picture(tmp_path / "a.png"))
    for precision in ("fp32", "bf16"):
        one = load(runs["own"][0], RunOptions(device="cpu", precision=precision))
        seen: list[bool] = []
        one.workshop.model.connector.register_forward_pre_hook(
            lambda *_, seen=seen: seen.append(torch.is_autocast_enabled("cpu"))
        )
        one.ask(image, "how many rings are there ?")
        assert set(seen) == {precision == "bf16"}
    assert load(runs["own"][0], RunOptions(device="cpu", seed=9)).seed == 9
    assert load(runs["own"][0], RunOptions(device="cpu")).seed == 3
