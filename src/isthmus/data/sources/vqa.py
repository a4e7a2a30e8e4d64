"""Questions with short answers: VQAv2, OKVQA, A-OKVQA, GQA and OCR-VQA in their published files."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from isthmus.core.errors import DataError
from isthmus.data.sources.annotations import (
    LETTER,
    SHORT,
    Asked,
    Questions,
    Record,
    led_by,
    load_json,
    load_named_rows,
    load_rows,
    most_common,
    picture_name,
)

COCO_NAMES = "COCO_{subtype}_{id12}.jpg"
"""How pictures of COCO 2014 are called, which VQAv2 and OKVQA ask about."""
OCR_SPLITS = {"train": 1, "val": 2, "test": 3}


def read_vqa(
    questions: Path, annotations: Path, images: Path, *, names: str = COCO_NAMES, per_picture: bool = False
) -> Questions:
    """VQAv2 (Goyal et al., 2017) and OKVQA (Marino et al., 2019), which share one format.

    The answer to learn is `multiple_choice_answer`, or else the one most people gave; all ten are accepted.

    Raises:
        DataError: A file or row cannot be understood, or a question has no annotation.
    """
    asked = _vqa(questions, annotations, names)
    return Questions(asked, images=images, name="VQA", prompt=SHORT, per_picture=per_picture)


def _vqa(questions: Path, annotations: Path, names: str) -> Iterator[Asked]:
    subtype = Record.of(load_json(questions), str(questions)).values.get("data_subtype", "")
    answered = {row.name("question_id"): row for row in load_rows(annotations, "annotations")}
    for row in load_rows(questions, "questions"):
        name = row.name("question_id")
        found = answered.get(name)
        if found is None:
            raise DataError(
                f"{row.where} asks question {name}, which {annotations} does not answer; "
                "expected the two files of one split"
            )
        answers = tuple(one.text("answer") for one in found.records("answers"))
        if not answers:
            raise found.wrong("answers", "at least one answer")
        has_best = "multiple_choice_answer" in found.values
        best = found.text("multiple_choice_answer") if has_best else most_common(answers)
        yield Asked(
            id=name,
            origin=row.where,
            picture=picture_name(names, row.name("image_id"), subtype=str(subtype)),
            question=row.text("question"),
            answers=led_by(best, answers),
            kind=str(found.values.get("answer_type", "")),
        )


def read_gqa(questions: Path, images: Path, *, per_picture: bool = False) -> Questions:
    """GQA (Hudson and Manning, 2019): an object of questions by id; pictures are `ID.jpg`.

    Raises:
        DataError: The file or an entry cannot be understood.
    """
    asked = (
        Asked(
            id=name,
            origin=row.where,
            picture=f"{row.name('imageId')}.jpg",
            question=row.text("question"),
            answers=(row.text("answer"),),
        )
        for name, row in load_named_rows(questions)
    )
    return Questions(asked, images=images, name="GQA", prompt=SHORT, per_picture=per_picture)


def read_a_okvqa(
    file: Path,
    images: Path,
    *,
    names: str = "{id12}.jpg",
    answer: Literal["letter", "short"] = "letter",
    rotate: bool = False,
) -> Questions:
    """A-OKVQA (Schwenk et al., 2022): four choices of which one is right, and ten short answers.

    Args:
        file: A list of questions.
        images: Where the pictures of COCO 2017 lie.
        names: How they are called.
        answer: The option's letter, or the short answer that most people gave.
        rotate: Ask each question as often as it has choices, each time with the right one at another letter, as
            LLaVA-1.5 does to have more rows.

    Raises:
        DataError: The file or a row cannot be understood.
    """
    read = _choices(file, names, rotate=rotate) if answer == "letter" else _direct(file, names)
    prompt = LETTER if answer == "letter" else SHORT
    return Questions(read, images=images, name="A-OKVQA", prompt=prompt)


def _choices(file: Path, names: str, *, rotate: bool) -> Iterator[Asked]:
    for row in load_rows(file):
        choices = row.texts("choices")
        right = row.number("correct_choice_idx")
        if right not in range(len(choices)):
            raise row.wrong("correct_choice_idx", f"a whole number from 0 to {len(choices) - 1}")
        for turned in range(len(choices) if rotate else 1):
            shown = choices[turned:] + choices[:turned]
            letters = [chr(ord("A") + at) for at in range(len(shown))]
            listed = [f"{letter}. {choice}" for letter, choice in zip(letters, shown, strict=True)]
            yield Asked(
                id=f"{row.name('question_id')}#{turned}" if rotate else row.name("question_id"),
                origin=row.where,
                picture=picture_name(names, row.name("image_id")),
                question="\n".join([row.text("question"), *listed]),
                answers=(letters[(int(right) - turned) % len(choices)],),
            )


def _direct(file: Path, names: str) -> Iterator[Asked]:
    for row in load_rows(file):
        answers = row.texts("direct_answers")
        yield Asked(
            id=row.name("question_id"),
            origin=row.where,
            picture=picture_name(names, row.name("image_id")),
            question=row.text("question"),
            answers=led_by(most_common(answers), answers),
        )


def read_ocr_vqa(
    file: Path, images: Path, *, split: Literal["train", "val", "test"], per_picture: bool = False
) -> Questions:
    """OCR-VQA (Mishra et al., 2019): book covers by id, each with questions and answers; pictures are `ID` + ending.

    Raises:
        DataError: The file or an entry cannot be understood, or it has no entry of this split.
    """
    asked = _covers(file, OCR_SPLITS[split])
    return Questions(asked, images=images, name=f"OCR-VQA {split}", prompt=SHORT, per_picture=per_picture)


def _covers(file: Path, split: int) -> Iterator[Asked]:
    for name, row in load_named_rows(file):
        if row.number("split") != split:
            continue
        questions, answers = row.texts("questions"), row.texts("answers")
        if len(questions) != len(answers):
            raise DataError(
                f"{row.where} has {len(questions)} questions but {len(answers)} answers; expected as many"
            )
        ending = PurePosixPath(urlsplit(row.text("imageURL")).path).suffix or ".jpg"
        for at, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            pair = Record({"question": question, "answer": answer}, f"{row.where}, question {at},")
            yield Asked(
                id=f"{name}#{at}",
                origin=row.where,
                picture=f"{name}{ending}",
                question=pair.text("question"),
                answers=(pair.text("answer"),),
            )
