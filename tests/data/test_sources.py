"""Folders with tables, LLaVA conversations and the built-in world as sources."""

import json
from pathlib import Path

import pytest
from PIL import Image

from isthmus.core.errors import DataError, UsageError
from isthmus.data.pictures import BadSample
from isthmus.data.samples import ImagePart, Turn
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.llava import LlavaConversations
from isthmus.data.sources.scenes import SceneSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/c.png"):
        Image.new("RGB", (3, 2), (9, 9, 9)).save(root / name)
    return root


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("t.csv", 'filepath,title\na.jpg,"one, ""two"""\nsub/c.png,three\na.jpg,four\n', "CSV"),
        ("t.csv", '\ufeffimage,caption\na.jpg,"one, ""two"""\nsub/c.png,three\na.jpg,four\n', "CSV"),
        ("t.tsv", 'image\tcaption\na.jpg\t"one, ""two"""\nsub/c.png\tthree\na.jpg\tfour\n', "TSV"),
    ],
)
def test_tables(folder: Path, name: str, text: str, kind: str) -> None:
    write(folder / name, text)
    source = Folder(folder, name)
    assert [sample.id for sample in source] == ["a.jpg", "sub/c.png"]
    assert source[0].captions == ('one, "two"', "four")
    assert source[1].images[0].picture().size == (3, 2)
    assert source[1].origin == f"{name} line 3"
    assert source.format == f"{kind} table {name} (2 pictures or rows)"


def test_json_lines(folder: Path) -> None:
    rows = [
        {"image": "a.jpg", "captions": ["one", "two"]},
        {"image": "b.jpg", "caption": "three <image>"},
        {
            "images": ["a.jpg", "sub/c.png"],
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": "<image>?"}, {"type": "image"}],
                },
                {"role": "assistant", "content": "yes"},
            ],
        },
        {
            "images": ["a.jpg"],
            "messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "it"}],
        },
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
    ]
    write(folder / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    source = Folder(folder, folder / "t.jsonl")
    assert [sample.captions for sample in source][:2] == [("one", "two"), ("three <image>",)]
    assert source[2].turns[0] == Turn("user", (ImagePart(0), "<image>?", ImagePart(1)))
    assert source[3].turns[0] == Turn("user", (ImagePart(0), "what"))
    assert source[4].images == ()
    assert source.format.startswith("JSONL table")


def test_text_beside_pictures(folder: Path) -> None:
    for name in ("a", "b", "sub/c"):
        write(folder / f"{name}.txt", f" caption of {name}\n")
    source = Folder(folder)
    assert [(sample.id, sample.captions) for sample in source] == [
        (name, (f"caption of {name}",)) for name in ("a", "b", "sub/c")
    ]
    (folder / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.jpg has no b\.txt beside it"):
        Folder(folder)


def test_a_missing_picture_is_a_bad_sample_when_read(folder: Path) -> None:
    source = Folder(folder, write(folder / "t.csv", "image,caption\nnone.jpg,x\n"))
    with pytest.raises(BadSample, match=r"none\.jpg does not exist"):
        source[0].images[0].read()


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.jpg", "sub/../../secret.jpg", "link.jpg", "away/secret.jpg"]
)
def test_pictures_stay_inside_the_folder(folder: Path, name: str) -> None:
    secret = write(folder.parent / "secret.jpg", "x")
    (folder / "link.jpg").symlink_to(secret)
    (folder / "away").symlink_to(folder.parent)
    with pytest.raises(DataError, match=r"t\.csv line 2 names the picture"):
        Folder(folder, write(folder / "t.csv", f"image,caption\n{name},x\n"))
    rows = [{"image": name, "conversations": [{"from": "human", "value": "<image>"}]}]
    with pytest.raises(DataError, match=r"l\.json row 0 names the picture"):
        LlavaConversations(write(folder / "l.json", json.dumps(rows)), folder)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "file,text\na.jpg,x\n", "columns 'file', 'text'; expected 'filepath' and 'title' or"),
        ("t.csv", "image,caption\na.jpg,\n", "line 2 has no picture or no caption"),
        ("t.csv", "image,caption\n", "holds no sample"),
        ("t.csv", "", "has the columns"),
        ("t.jsonl", "{]\n", "line 1 is no valid JSON"),
        ("t.jsonl", '{"image": "a.jpg", "caption": "\\ud83d"}\n', "line 1 is no valid JSON"),
        ("t.jsonl", "\n[1]\n", "line 2 holds list"),
        ("t.jsonl", '{"image": "a.jpg"}\n', "line 1 has neither captions nor messages"),
        ("t.jsonl", '{"image": 3, "caption": "x"}\n', "images that are not a list of strings"),
        (
            "t.jsonl",
            '{"image": "a.jpg", "caption": "x"}\n{"image": "a.jpg", "caption": "y"}\n',
            "'a.jpg' occurs at",
        ),
        ("t.jsonl", '{"messages": [{"role": "bot", "content": "x"}]}\n', "role 'bot'"),
        (
            "t.jsonl",
            '{"messages": [{"role": "user", "content": [{"type": "sound"}]}]}\n',
            "neither text nor an image",
        ),
        (
            "t.jsonl",
            '{"images": ["a.jpg"], "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]}\n',
            r"2 image part\(s\) in its messages, but names 1",
        ),
    ],
)
def test_tables_that_cannot_be_understood(folder: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Folder(folder, write(folder / name, text))


def test_what_is_no_folder_or_no_text_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        Folder(folder / "none")
    with pytest.raises(DataError, match="cannot be read"):
        Folder(folder, "none.csv")
    (folder / "t.csv").write_bytes(b"image,caption\na.jpg,\xff\n")
    with pytest.raises(DataError, match="no UTF-8"):
        Folder(folder, "t.csv")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no sample"):
        Folder(folder / "empty")


def talk(*words: str, image: object = None) -> dict[str, object]:
    turns = [{"from": ("human", "gpt")[at % 2], "value": value} for at, value in enumerate(words)]
    return {"id": "x", "conversations": turns} | ({} if image is None else {"image": image})


def test_llava_conversations(folder: Path) -> None:
    rows = [
        talk("What is it?\n<image>", "A dog.", "Sure?", "Yes.", image="a.jpg"),
        talk("<image>\n<image>\nSame?", "No.", image=["a.jpg", "sub/c.png"]),
        talk("<image>", "a caption", image="b.jpg"),
        talk("Hello", "there"),
    ]
    source = LlavaConversations(write(folder / "l.json", json.dumps(rows)), folder)
    assert source[0].turns == (
        Turn("user", (ImagePart(0), "\nWhat is it?")),
        Turn("assistant", ("A dog.",)),
        Turn("user", ("Sure?",)),
        Turn("assistant", ("Yes.",)),
    )
    assert source[0].captions == ()
    assert (source[0].question, source[0].answers) == ("What is it?", ("A dog.",))
    assert (source[2].question, source[2].answers) == (None, ())
    assert source[1].turns[0] == Turn("user", (ImagePart(0), "\n", ImagePart(1), "\nSame?"))
    assert source[1].images[1].picture().size == (3, 2)
    assert source[2].turns[0] == Turn("user", (ImagePart(0),))
    assert source[2].captions == ("a caption",)
    assert source[3].images == ()
    assert [sample.id for sample in source] == ["0:x", "1:x", "2:x", "3:x"]
    assert source.format == "LLaVA conversations (4 rows in l.json)"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            talk("<image><image>", "x", image="a.jpg"),
            r"l\.json row 1 has 2 <image> marker\(s\) but 1 picture\(s\)",
        ),
        (talk("no marker", "x", image="a.jpg"), "0 <image> marker"),
        (talk("<image>", "x"), r"1 <image> marker\(s\) but 0"),
        (talk("<image>", "x", image=4), "neither a path nor a list"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "turn without a 'from'"),
        ({"id": 1}, "no list 'conversations'"),
        ([], "no list 'conversations'"),
    ],
)
def test_a_wrong_llava_row_is_named_when_the_file_is_opened(folder: Path, row: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        LlavaConversations(write(folder / "l.json", json.dumps([talk("Hello", "there"), row])), folder)


@pytest.mark.parametrize(("text", "words"), [("[]", "no row"), ("{}", "holds dict"), ("[", "no valid JSON")])
def test_a_wrong_llava_file_is_named(folder: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        LlavaConversations(write(folder / "l.json", text), folder)


def test_scenes_are_drawn_when_looked_at() -> None:
    source = SceneSource(split="val", num_samples=5, image_size=32, seed=1)
    scene, question = source.world.example(3)
    sample = source[3]
    assert len(source) == 5
    assert (sample.question, sample.answers, sample.kind) == (
        question.text,
        (question.answer,),
        question.kind,
    )
    assert sample.captions == tuple(source.world.captions(scene))
    image = sample.images[0]
    assert image.picture().tobytes() == source.world.picture(scene).tobytes()
    assert image.read()[:4] == b"\x89PNG"
    assert [turn.role for turn in source.text_sample(3).turns[:2]] == ["user", "assistant"]
    assert [turn.role for turn in sample.turns[:2]] == ["user", "assistant"]
    assert sample.turns[0].text == question.text
    assert len(sample.turns) <= 18
    assert source[1:4].text_sample(2) == source.text_sample(3)


def test_a_scene_is_named_by_what_is_drawn() -> None:
    names = [
        [
            sample.images[0].digest()
            for sample in SceneSource(split="train", num_samples=20, image_size=size, seed=seed)
        ]
        for size, seed in ((32, 0), (32, 0), (48, 0), (32, 1))
    ]
    assert names[0] == names[1]
    assert len({name for each in names for name in each}) == 60


def test_no_scenes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        SceneSource(split="train", num_samples=0)
