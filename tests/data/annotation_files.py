"""Small made-up files in the published formats of academic data sets."""

import json
from pathlib import Path
from typing import Any

from isthmus.data.samples import ImagePart, Sample, Source

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def talk(sample: Sample) -> list[str]:
    """The turns as text, `<image>` where the picture stands."""
    return [
        "".join("<image>" if isinstance(part, ImagePart) else part for part in turn.parts)
        for turn in sample.turns
    ]


def names(source: Source) -> list[str]:
    return [sample.images[0].name for sample in source]


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def ten(*answers: str) -> list[dict[str, Any]]:
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": at}
        for at, answer in enumerate(answers, start=1)
    ]


def vqa_files(folder: Path, *, best: bool = True) -> tuple[Path, Path]:
    questions = {
        "info": {"year": 2017},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "data_subtype": "train2014",
        "questions": [
            {
                "image_id": 458752,
                "question": "What is this photo taken looking through?",
                "question_id": 458752000,
            },
            {"image_id": 458752, "question": "What position is this man playing?", "question_id": 458752001},
            {"image_id": 9, "question": "Is it <image> red?", "question_id": 9000},
        ],
    }
    given = {
        458752000: (
            458752,
            "net",
            ten("net", "net", "net", "netting", "net", "net", "mesh", "net", "net", "net"),
        ),
        458752001: (458752, "pitcher", ten("pitcher", "catcher", "pitcher")),
        9000: (9, "yes", ten("no", "yes", "yes")),
    }
    annotations = {
        "annotations": [
            {
                "question_id": name,
                "image_id": image,
                "answer_type": "other",
                "question_type": "what",
                "answers": answers,
            }
            | ({"multiple_choice_answer": right} if best else {})
            for name, (image, right, answers) in given.items()
        ]
    }
    return write(folder / "questions.json", questions), write(folder / "annotations.json", annotations)


A_OKVQA = [
    {
        "split": "train",
        "image_id": 299207,
        "question_id": "22MexNkBPpdZGX6sxbxVBH",
        "question": "What is the man by the bags awaiting?",
        "choices": ["skateboarder", "train", "delivery", "cab"],
        "correct_choice_idx": 3,
        "direct_answers": ["ride", "ride", "bus", "taxi", "taxi", "taxi", "ride", "cab", "taxi", "taxi"],
        "difficult_direct_answer": False,
        "rationales": ["A train would not be on the street."],
    }
]


OCR = {
    "761183272": {
        "imageURL": "http://ecx.images-amazon.com/images/I/61Y5.png",
        "questions": ["Who wrote this book?", "What is the genre of this book?"],
        "answers": ["Ruth Smith", "Calendars"],
        "title": "Mom's Family Calendar",
        "authorName": "Ruth Smith",
        "genre": "Calendars",
        "split": 1,
    },
    "1": {"imageURL": "http://x/y.jpg", "questions": ["Q?"], "answers": ["B"], "split": 3},
}


def refcoco_files(folder: Path) -> tuple[Path, Path]:
    sentences = [{"sent": "the lady in blue", "raw": "the lady in blue", "sent_id": 0, "tokens": ["the"]}]
    refs = [
        {
            "ref_id": at,
            "ann_id": 7,
            "image_id": 5,
            "category_id": 1,
            "split": split,
            "sentences": sentences,
            "sent_ids": [0],
        }
        for at, split in [*((at, "train") for at in range(20)), (20, "testA")]
    ]
    instances = {
        "images": [{"id": 5, "file_name": "COCO_train2014_000000000005.jpg", "height": 200, "width": 400}],
        "annotations": [
            {"id": 7, "image_id": 5, "category_id": 1, "bbox": [100.0, 50.0, 200.0, 100.0], "area": 1}
        ],
        "categories": [],
    }
    return write(folder / "refs.json", refs), write(folder / "instances.json", instances)


def genome_files(folder: Path) -> tuple[Path, Path]:
    regions = [
        {
            "region_id": at,
            "image_id": 1,
            "phrase": f"thing {at}",
            "x": 10 * at,
            "y": 0,
            "width": 10,
            "height": 50,
        }
        for at in range(15)
    ]
    regions[0] |= {"x": -5}  # cut at the border
    regions[1] |= {"x": 500}  # outside the picture
    data = [
        {
            "image_id": 1,
            "width": 200,
            "height": 100,
            "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg",
            "coco_id": None,
            "flickr_id": None,
        }
    ]
    return write(folder / "regions.json", [{"id": 1, "regions": regions}]), write(
        folder / "image_data.json", data
    )


def spoil(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
