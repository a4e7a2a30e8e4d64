"""The academic data sets of LLaVA-1.5 in their published files (Liu et al., 2023b, table 7)."""

from typing import Literal

from isthmus.config.base import Count, Settings

Space = Literal["padded", "picture"]
"""What the coordinates of boxes are shares of."""
Split = Literal["train", "val", "test"]
"""A part of a data set."""


class VqaSource(Settings):
    """VQAv2 or OKVQA: one file of questions and one of annotations."""

    kind: Literal["vqav2", "okvqa"]
    questions: str
    """The questions, a JSON file."""
    annotations: str
    """The answers, a JSON file."""
    images: str
    """The folder of the pictures."""
    names: str = "COCO_{subtype}_{id12}.jpg"
    """How they are called: `{id}`, `{id12}` (with zeros up to 12 digits), `{subtype}` (COCO's split)."""
    per_picture: bool = False
    """All questions about a picture make one conversation, as LLaVA-1.5 trains; false: each is a row."""


class GqaSource(Settings):
    """GQA: an object of questions; pictures are called `ID.jpg`."""

    kind: Literal["gqa"] = "gqa"
    questions: str
    """The questions with answers, a JSON file."""
    images: str
    """The folder of the pictures."""
    per_picture: bool = False
    """All questions about a picture make one conversation; false: each is a row."""


class AOkvqaSource(Settings):
    """A-OKVQA: questions with four choices and ten short answers."""

    kind: Literal["a_okvqa"] = "a_okvqa"
    file: str
    """A JSON list."""
    images: str
    """The folder of the pictures."""
    names: str = "{id12}.jpg"
    """How they are called: `{id}`, `{id12}`."""
    answer: Literal["letter", "short"] = "letter"
    """The letter of the right choice, or the short answer that most people gave."""
    rotate: bool = False
    """Whether each question is asked once for each letter that can be right; for answer: letter."""


class OcrVqaSource(Settings):
    """OCR-VQA: book covers with questions; pictures are called by their id and the ending of their address."""

    kind: Literal["ocr_vqa"] = "ocr_vqa"
    file: str
    """`dataset.json`."""
    images: str
    """The folder of the pictures."""
    split: Split
    """Which covers."""
    per_picture: bool = False
    """All questions about a cover make one conversation; false: each is a row."""


class TextCapsSource(Settings):
    """TextCaps: captions of pictures that hold text."""

    kind: Literal["textcaps"] = "textcaps"
    file: str
    """A JSON file."""
    images: str
    """The folder of the pictures."""
    names: str = "{id}.jpg"
    """How they are called."""
    ocr: str | None = None
    """The words that were read in the pictures (TextVQA's Rosetta file, JSON), told after the question as in LLaVA-1.5;
    null: not told."""


class RefCocoSource(Settings):
    """RefCOCO, RefCOCO+ or RefCOCOg: sentences that mean one region; found by box or by words, as a seed decides."""

    kind: Literal["refcoco"] = "refcoco"
    refs: str
    """The references: the published `refs(…).p`, of which only plain data is read, or its list as JSON."""
    instances: str
    """`instances.json`: pictures and boxes."""
    images: str
    """The folder of the pictures."""
    split: str = "train"
    """Which references: train, val, testA, testB or test."""
    space: Space = "padded"
    """Coordinates are shares of the picture padded to a square (resize: pad, as LLaVA-1.5), or of the picture."""
    per_picture: bool = False
    """All references in a picture make one conversation; false: each is a row."""
    seed: int = 0
    """Which sentence is taken and which way each is asked."""


class VisualGenomeSource(Settings):
    """Visual Genome: regions with descriptions, asked about as those of RefCOCO."""

    kind: Literal["visual_genome"] = "visual_genome"
    regions: str
    """`region_descriptions.json`."""
    image_data: str
    """`image_data.json`."""
    images: str
    """The folder of `VG_100K` and `VG_100K_2`."""
    most: Count = 10
    """Most regions a picture, drawn by seed."""
    space: Space = "padded"
    """Coordinates are shares of the picture padded to a square (resize: pad, as LLaVA-1.5), or of the picture."""
    per_picture: bool = False
    """All regions of a picture make one conversation; false: each is a row."""
    seed: int = 0
    """Which regions are taken and which way each is asked."""


AcademicSource = (
    VqaSource | GqaSource | AOkvqaSource | OcrVqaSource | TextCapsSource | RefCocoSource | VisualGenomeSource
)
"""One academic data set."""
