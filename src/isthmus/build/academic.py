"""Academic data sets from a recipe."""

from pathlib import Path
from typing import assert_never

from isthmus.config.academic import (
    AcademicSource,
    AOkvqaSource,
    GqaSource,
    OcrVqaSource,
    RefCocoSource,
    TextCapsSource,
    VisualGenomeSource,
    VqaSource,
)
from isthmus.config.paths import data_path
from isthmus.data.samples import Source
from isthmus.data.sources.regions import read_refcoco, read_visual_genome
from isthmus.data.sources.textcaps import TextCaps
from isthmus.data.sources.vqa import read_a_okvqa, read_gqa, read_ocr_vqa, read_vqa


def build_academic(config: AcademicSource) -> Source:
    """Read the files of a data set.

    Raises:
        DataError: A file is missing, or a row of it cannot be understood.
    """
    images = _path(config.images)
    match config:
        case VqaSource():
            return read_vqa(
                _path(config.questions),
                _path(config.annotations),
                images,
                names=config.names,
                per_picture=config.per_picture,
            )
        case GqaSource():
            return read_gqa(_path(config.questions), images, per_picture=config.per_picture)
        case AOkvqaSource():
            return read_a_okvqa(
                _path(config.file), images, names=config.names, answer=config.answer, rotate=config.rotate
            )
        case OcrVqaSource():
            return read_ocr_vqa(
                _path(config.file), images, split=config.split, per_picture=config.per_picture
            )
        case TextCapsSource():
            ocr = None if config.ocr is None else _path(config.ocr)
            return TextCaps(_path(config.file), images, names=config.names, ocr=ocr)
        case RefCocoSource():
            return read_refcoco(
                _path(config.refs),
                _path(config.instances),
                images,
                split=config.split,
                space=config.space,
                per_picture=config.per_picture,
                seed=config.seed,
            )
        case VisualGenomeSource():
            return read_visual_genome(
                _path(config.regions),
                _path(config.image_data),
                images,
                most=config.most,
                space=config.space,
                per_picture=config.per_picture,
                seed=config.seed,
            )
        case _:
            assert_never(config)


def _path(text: str) -> Path:
    return Path(data_path(text))
