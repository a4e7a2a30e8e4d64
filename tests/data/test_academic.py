"""Small made-up files in the published formats of LLaVA-1.5's academic data sets, as conversation rows."""

from pathlib import Path
from typing import Any

import pytest

from isthmus.core.errors import DataError
from isthmus.data.samples import ImagePart
from isthmus.data.sources.textcaps import TextCaps
from isthmus.data.sources.vqa import read_a_okvqa, read_gqa, read_ocr_vqa, read_vqa

from .annotation_files import A_OKVQA, LETTER, OCR, SHORT, names, spoil, talk, vqa_files, write


@pytest.mark.parametrize("best", [True, False])
def test_vqav2_and_okvqa(tmp_path: Path, best: bool) -> None:
    source = read_vqa(*vqa_files(tmp_path, best=best), tmp_path)
    assert source.format == "VQA (3 questions in 3 rows)"
    assert names(source) == ["COCO_train2014_000000458752.jpg"] * 2 + ["COCO_train2014_000000000009.jpg"]
    assert talk(source[0]) == [f"<image>\nWhat is this photo taken looking through?\n{SHORT}", "net"]
    assert (source[0].question, source[0].kind) == (
        f"What is this photo taken looking through?\n{SHORT}",
        "other",
    )
    # All ten stay, as the official accuracy counts them; the one to learn comes first.
    assert sorted(source[0].answers) == ["mesh", *["net"] * 8, "netting"]
    assert source[2].answers == ("yes", "no", "yes")
    assert source[2].turns[0].parts == (ImagePart(0), f"\nIs it <image> red?\n{SHORT}")
    assert source[1].origin == f"{tmp_path / 'questions.json'} row 1"


def test_questions_about_one_picture_as_one_conversation(tmp_path: Path) -> None:
    source = read_vqa(*vqa_files(tmp_path), tmp_path, names="train2017/{id12}.jpg", per_picture=True)
    assert len(source) == 2
    assert names(source)[0] == "train2017/000000458752.jpg"
    assert talk(source[0]) == [
        f"<image>\nWhat is this photo taken looking through?\n{SHORT}",
        "net",
        "What position is this man playing?",
        "pitcher",
    ]
    assert [turn.role for turn in source[0].turns] == ["user", "assistant"] * 2
    assert source[0].question is None


def test_gqa(tmp_path: Path) -> None:
    file = write(
        tmp_path / "gqa.json",
        {
            "02930152": {
                "semantic": [{"operation": "select"}],
                "isBalanced": True,
                "question": "Is the sky dark?",
                "imageId": "2354786",
                "answer": "yes",
                "fullAnswer": "Yes, the sky is dark.",
            }
        },
    )
    source = read_gqa(file, tmp_path)
    assert talk(source[0]) == [f"<image>\nIs the sky dark?\n{SHORT}", "yes"]
    assert (source[0].id, names(source)) == ("02930152", ["2354786.jpg"])


def test_a_okvqa_letters(tmp_path: Path) -> None:
    source = read_a_okvqa(write(tmp_path / "a.json", A_OKVQA), tmp_path)
    asked = "<image>\nWhat is the man by the bags awaiting?\nA. skateboarder\nB. train\nC. delivery\nD. cab\n"
    assert talk(source[0]) == [asked + LETTER, "D"]
    assert names(source) == ["000000299207.jpg"]


def test_a_okvqa_rotated(tmp_path: Path) -> None:
    source = read_a_okvqa(write(tmp_path / "a.json", A_OKVQA), tmp_path, rotate=True)
    assert len({sample.id for sample in source}) == 4
    letters = []
    for sample in source:
        asked, letter = talk(sample)
        letters.append(letter)
        assert f"\n{letter}. cab\n" in asked
        assert sorted(line[3:] for line in asked.split("\n")[2:6]) == sorted(A_OKVQA[0]["choices"])
    assert letters == ["D", "C", "B", "A"]


def test_a_okvqa_short(tmp_path: Path) -> None:
    source = read_a_okvqa(write(tmp_path / "a.json", A_OKVQA), tmp_path, answer="short")
    assert talk(source[0]) == [f"<image>\nWhat is the man by the bags awaiting?\n{SHORT}", "taxi"]
    assert len(source[0].answers) == 10


def test_ocr_vqa(tmp_path: Path) -> None:
    file = write(tmp_path / "dataset.json", OCR)
    source = read_ocr_vqa(file, tmp_path, split="train", per_picture=True)
    assert names(source) == ["761183272.png"]
    assert talk(source[0]) == [
        f"<image>\nWho wrote this book?\n{SHORT}",
        "Ruth Smith",
        "What is the genre of this book?",
        "Calendars",
    ]
    assert len(read_ocr_vqa(file, tmp_path, split="train")) == 2
    with pytest.raises(DataError, match="OCR-VQA val files hold no question"):
        read_ocr_vqa(file, tmp_path, split="val")


def test_textcaps(tmp_path: Path) -> None:
    rows = [
        {"image_id": "0054c9", "caption_id": 1, "caption_str": "A sign says stop. ", "set_name": "train"},
        {"image_id": "0a", "caption_id": 2, "caption_str": "A red book.", "set_name": "train"},
        {"image_id": "0054c9", "caption_id": 3, "caption_str": "A stop sign.", "set_name": "train"},
    ]
    source = TextCaps(write(tmp_path / "t.json", {"dataset_name": "textcaps", "data": rows}), tmp_path)
    assert [sample.captions for sample in source] == [("A sign says stop.", "A stop sign."), ("A red book.",)]
    assert talk(source[0]) == [
        "<image>\nProvide a one-sentence caption for the provided image.",
        "A sign says stop.",
    ]
    assert [source.num_captions(at) for at in range(2)] == [2, 1]
    assert names(source) == ["0054c9.jpg", "0a.jpg"]


def test_textcaps_with_the_words_that_were_read(tmp_path: Path) -> None:
    """As the rows of LLaVA-1.5's mixture are written: the question, a line with the words, commas between them."""
    rows = [{"image_id": name, "caption_str": f"Caption {name}."} for name in ("a", "b")]
    file = write(tmp_path / "t.json", {"data": rows})
    read = [
        {"image_id": "b", "ocr_tokens": [], "ocr_info": []},
        {"image_id": "c", "ocr_tokens": ["other"]},
        {"image_id": "a", "ocr_tokens": ["LESS", "IN", "$S", "<image>"]},
    ]
    source = TextCaps(file, tmp_path, ocr=write(tmp_path / "ocr.json", {"data": read}))
    assert talk(source[0]) == [
        "<image>\nProvide a one-sentence caption for the provided image.\n"
        "Reference OCR token: LESS, IN, $S, <image>",
        "Caption a.",
    ]
    # What was read is text, also where it looks like a marker.
    assert sum(isinstance(part, ImagePart) for turn in source[0].turns for part in turn.parts) == 1
    assert talk(source[1])[0] == "<image>\nProvide a one-sentence caption for the provided image."
    with pytest.raises(
        DataError, match=r"less\.json lacks 1 of 2 pictures, first a \(.*t\.json row 0\); expected the words"
    ):
        TextCaps(file, tmp_path, ocr=write(tmp_path / "less.json", {"data": read[:2]}))
    with pytest.raises(
        DataError, match=r"odd\.json row 0 has 'ocr_tokens' = a list; expected a list of texts"
    ):
        TextCaps(
            file, tmp_path, ocr=write(tmp_path / "odd.json", {"data": [{"image_id": "a", "ocr_tokens": [1]}]})
        )


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("questions", lambda c: c["questions"][1].pop("question"), r"questions\.json row 1 has no 'question'; expected a text"),
        ("questions", lambda c: c["questions"][2].update(image_id=1.5), r"row 2 has 'image_id' = 1\.5; expected a number or a text"),
        ("questions", lambda c: c["questions"].append(3), r"questions\.json row 3 is a number; expected an object"),
        ("questions", lambda c: c["questions"][0].update(question_id=4), r"row 0 asks question 4, which .*annotations\.json does not answer"),
        ("questions", lambda c: c["questions"][0].update(image_id="../../x"), r"row 0 names the picture .*outside"),
        ("questions", lambda c: c.update(questions={}), r"questions\.json holds an object; expected an object with a list 'questions'"),
        ("annotations", lambda c: c["annotations"][1]["answers"][2].update(answer=""), r"annotations\.json row 1, 'answers' 2, has 'answer' = ''; expected a text"),
        ("annotations", lambda c: c["annotations"][1].update(answers=[]), r"row 1 has 'answers' = a list; expected at least one answer"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_by_file_and_row(tmp_path: Path, file: str, change: Any, said: str) -> None:
    files = vqa_files(tmp_path)
    spoil(tmp_path / f"{file}.json", change)
    with pytest.raises(DataError, match=said) as caught:
        read_vqa(*files, tmp_path, names="{id}.jpg")
    assert "\n" not in str(caught.value)


def test_bad_files_of_the_other_formats(tmp_path: Path) -> None:
    wrong = A_OKVQA[0] | {"correct_choice_idx": 4}
    with pytest.raises(
        DataError, match=r"a\.json row 1 has 'correct_choice_idx' = 4; expected a whole number from 0 to 3"
    ):
        read_a_okvqa(write(tmp_path / "a.json", [A_OKVQA[0], wrong]), tmp_path)
    uneven = OCR | {"2": OCR["1"] | {"questions": ["a?", "b?"], "split": 1}}
    with pytest.raises(DataError, match=r"entry '2' has 2 questions but 1 answers"):
        read_ocr_vqa(write(tmp_path / "o.json", uneven), tmp_path, split="train")
    with pytest.raises(DataError, match=r"t\.json row 0 has no 'caption_str'"):
        TextCaps(write(tmp_path / "t.json", {"data": [{"image_id": 1}]}), tmp_path)
    (tmp_path / "g.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"g\.json is no valid JSON"):
        read_gqa(tmp_path / "g.json", tmp_path)
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        read_gqa(tmp_path / "none.json", tmp_path)
