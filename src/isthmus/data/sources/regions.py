"""Regions of pictures and what is said of them: RefCOCO and Visual Genome, as boxes to name and phrases to find."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, final
from urllib.parse import urlsplit

from isthmus.core.errors import DataError
from isthmus.core.randomness import order_of, seed_of
from isthmus.core.sizes import Size
from isthmus.data.sources.annotations import Asked, Questions, Record, load_json, load_rows, rows_of
from isthmus.data.sources.plain_pickle import load_plain_pickle

Space = Literal["padded", "picture"]
"""What coordinates are shares of: the picture padded to a square, as LLaVA-1.5 sees it, or the picture itself."""

_PICKLES = (".p", ".pkl", ".pickle")
_DESCRIBE = "Please provide a short description for this region: {}."
_LOCATE = "Please provide the bounding box coordinate of the region this sentence describes: {}."


@final
@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels from the upper left corner."""

    left: float
    top: float
    width: float
    height: float

    def within(self, size: Size) -> "Box":
        """The part of it that lies in a picture."""
        left, top = (
            min(max(value, 0.0), end) for value, end in ((self.left, size.width), (self.top, size.height))
        )
        right = min(max(self.left + self.width, 0.0), size.width)
        bottom = min(max(self.top + self.height, 0.0), size.height)
        return Box(left=left, top=top, width=right - left, height=bottom - top)

    def words(self, size: Size, space: Space) -> str:
        """`[left, top, right, bottom]` as shares of width and height in [0, 1] with two decimals."""
        side = max(size)
        across, down = (side, side) if space == "padded" else (size.width, size.height)
        # The picture stands in the middle of its square, half pixels to the left and top, as the processor pads it.
        shift_x, shift_y = (across - size.width) // 2, (down - size.height) // 2
        left, right = ((x + shift_x) / across for x in (self.left, self.left + self.width))
        top, bottom = ((y + shift_y) / down for y in (self.top, self.top + self.height))
        return f"[{left:.2f}, {top:.2f}, {right:.2f}, {bottom:.2f}]"


def exchange(phrase: str, box: str, *, describe: bool) -> tuple[str, str]:
    """Question and answer: the box is asked about and the phrase answers, or the other way round."""
    if describe:
        return _DESCRIBE.format(box), phrase
    return _LOCATE.format(phrase), box


def read_refcoco(
    refs: Path,
    instances: Path,
    images: Path,
    *,
    split: str = "train",
    space: Space = "padded",
    per_picture: bool = False,
    seed: int = 0,
) -> Questions:
    """RefCOCO, RefCOCO+ and RefCOCOg (Yu et al., 2016; Mao et al., 2016).

    The references are the published `refs(...).p`, a pickle of which nothing but plain data is read, or JSON of the
    same list. Each reference is one question; which of its sentences is taken, and which of the two ways of asking,
    follows from seed and id.

    Raises:
        DataError: A file or row cannot be understood, a reference names what is not there, or none is of this split.
    """
    asked = _references(refs, instances, split, space, seed)
    return Questions(asked, images=images, name=f"RefCOCO {split}", per_picture=per_picture)


def _references(refs: Path, instances: Path, split: str, space: Space, seed: int) -> Iterator[Asked]:
    whole = Record.of(load_json(instances), str(instances))
    pictures = {row.name("id"): row for row in whole.records("images")}
    boxes = {row.name("id"): row for row in whole.records("annotations")}
    listed = load_plain_pickle(refs) if refs.suffix in _PICKLES else load_json(refs)
    for row in rows_of(listed, refs):
        if row.text("split") != split:
            continue
        name, sentences = row.name("ref_id"), row.records("sentences")
        picture, box = pictures.get(row.name("image_id")), boxes.get(row.name("ann_id"))
        if picture is None or box is None or not sentences:
            wrong = "has no sentence" if not sentences else f"names a picture or box that {instances} lacks"
            raise DataError(f"{row.where} {wrong}; expected the files of one release")
        size = _size(picture)
        left, top, width, height = box.numbers("bbox", 4)
        place = Box(left=left, top=top, width=width, height=height).within(size)
        phrase = sentences[seed_of(seed, "sentence", name) % len(sentences)].text("sent")
        describe = seed_of(seed, "describe", name) % 2 == 0
        question, answer = exchange(phrase, place.words(size, space), describe=describe)
        yield Asked(
            id=name,
            origin=row.where,
            picture=picture.text("file_name"),
            question=question,
            answers=(answer,),
            kind="describe" if describe else "locate",
        )


def read_visual_genome(
    regions: Path,
    image_data: Path,
    images: Path,
    *,
    most: int = 10,
    space: Space = "padded",
    per_picture: bool = False,
    seed: int = 0,
) -> Questions:
    """Visual Genome's region descriptions (Krishna et al., 2017).

    Args:
        regions: `region_descriptions.json`: pictures with their regions.
        image_data: `image_data.json`: sizes and addresses of the pictures.
        images: The folder that holds `VG_100K` and `VG_100K_2`.
        most: Most regions a picture, drawn by seed (LLaVA-1.5: 10). Boxes are cut at the picture's border; those that
            lie outside it are left out.
        space: What coordinates are shares of.
        per_picture: All regions of a picture make one conversation.
        seed: Decides which regions are taken and how each is asked about.

    Raises:
        DataError: A file or row cannot be understood, or a picture is not listed.
    """
    asked = _genome(regions, image_data, most, space, seed)
    return Questions(asked, images=images, name="Visual Genome", per_picture=per_picture)


def _genome(regions: Path, image_data: Path, most: int, space: Space, seed: int) -> Iterator[Asked]:
    pictures = {row.name("image_id"): row for row in load_rows(image_data)}
    for row in load_rows(regions):
        name = row.name("id")
        picture = pictures.get(name)
        if picture is None:
            raise DataError(
                f"{row.where} is about picture {name}, which {image_data} lacks; expected one release"
            )
        size = _size(picture)
        file = "/".join(PurePosixPath(urlsplit(picture.text("url")).path).parts[-2:])
        found = [(region, _region_box(region).within(size)) for region in row.records("regions")]
        inside = [(region, box) for region, box in found if box.width > 0 and box.height > 0]
        for at in order_of(len(inside), seed, "regions", name).tolist()[:most]:
            region, box = inside[at]
            number = region.name("region_id")
            describe = seed_of(seed, "describe", number) % 2 == 0
            question, answer = exchange(region.text("phrase"), box.words(size, space), describe=describe)
            yield Asked(
                id=number,
                origin=row.where,
                picture=file,
                question=question,
                answers=(answer,),
                kind="describe" if describe else "locate",
            )


def _size(picture: Record) -> Size:
    for side in ("height", "width"):
        if picture.number(side) < 1:
            raise picture.wrong(side, "a number of pixels from 1 on")
    return Size(height=int(picture.number("height")), width=int(picture.number("width")))


def _region_box(region: Record) -> Box:
    left, top, width, height = (region.number(key) for key in ("x", "y", "width", "height"))
    return Box(left=left, top=top, width=width, height=height)
