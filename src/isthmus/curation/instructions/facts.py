"""What a writer is told of a picture: captions and labelled boxes, as words. The picture itself is never read here."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

from isthmus.core.errors import DataError
from isthmus.data.scenes import Scene, Scenes
from isthmus.data.sources.annotations import Record, load_json
from isthmus.data.sources.tables import parse_json, read_text

T = TypeVar("T")

_ROUNDING = 1.0
"""Pixels by which a published box may stand over the edge; COCO's polygons are rounded to hundredths of a pixel."""


@final
@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A box with its label: left, top, right and bottom as shares of width and height."""

    label: str
    box: tuple[float, float, float, float]


@final
@dataclass(frozen=True, kw_only=True)
class Facts:
    """One picture in words.

    Attributes:
        id: Unique among the pictures.
        image: The picture's path as the conversations will name it.
        origin: File and row, for messages.
        captions: What was said of it.
        boxes: What is where in it.
        scene: The drawn scene, where it is one.
    """

    id: str
    image: str
    origin: str
    captions: tuple[str, ...]
    boxes: tuple[Labelled, ...]
    scene: Scene | None = None

    @property
    def text(self) -> str:
        """The facts as a writer reads them."""
        lines = [*self.captions, ""]
        lines += [f"{one.label}: [{', '.join(f'{edge:.3f}' for edge in one.box)}]" for one in self.boxes]
        return "\n".join(lines).strip()

    def problem(self) -> str | None:
        """Why nothing true can be written about these facts, or None."""
        if not self.captions or not all(caption.strip() for caption in self.captions):
            return "has an empty caption; expected at least one, each with words"
        for one in self.boxes:
            left, top, right, bottom = one.box
            shown = f"the box of '{one.label}', [{', '.join(f'{edge:g}' for edge in one.box)}],"
            if not one.label.strip():
                return "has a box without a label; expected the name of a thing"
            if not all(math.isfinite(edge) and 0 <= edge <= 1 for edge in one.box):
                return f"has {shown} outside the picture; expected shares of width and height from 0 to 1"
            if right <= left or bottom <= top:
                return f"has {shown} without area; expected left < right and top < bottom"
        return None


def scene_facts(world: Scenes, num_scenes: int) -> Iterator[Facts]:
    """The first scenes of a world, each thing labelled by colour and shape."""
    for index in range(num_scenes):
        scene = world.scene(index)
        height, width = scene.canvas
        boxes = tuple(
            Labelled(
                label=f"{thing.colour} {thing.shape}",
                box=(
                    max(thing.box.left / width, 0.0),
                    max(thing.box.top / height, 0.0),
                    min(thing.box.right / width, 1.0),
                    min(thing.box.bottom / height, 1.0),
                ),
            )
            for thing in scene.things
        )
        name = f"{world.split}-{index}"
        captions = tuple(world.captions(scene)[:3])
        yield Facts(
            id=name, image=f"{name}.png", origin=f"scene {name}", captions=captions, boxes=boxes, scene=scene
        )


def read_facts(file: Path) -> Iterator[Facts]:
    """JSONL with `image`, `captions` and `boxes`: `{"label", "box": [left, top, right, bottom]}` in shares.

    `id` may name a row; otherwise its picture does.

    Raises:
        DataError: The file or a line is something else.
    """
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file} line {number}"
        row = Record.of(parse_json(line, where), where)
        image = row.text("image")
        boxes = row.records("boxes") if "boxes" in row.values else ()
        yield Facts(
            id=row.name("id") if "id" in row.values else image,
            image=image,
            origin=where,
            captions=tuple(caption.strip() for caption in row.texts("captions", least=0)),
            boxes=tuple(_labelled(box) for box in boxes),
        )


def read_coco(captions: Path, instances: Path | None) -> Iterator[Facts]:
    """COCO's captions file, with the boxes of its instances file (Lin et al., 2014); crowds are left out.

    Raises:
        DataError: A file or entry is something else, or an entry names a picture or category that is not listed.
    """
    whole = Record.of(load_json(captions), str(captions))
    said: dict[str, list[str]] = {picture.name("id"): [] for picture in whole.records("images")}
    for entry in whole.records("annotations"):
        caption = entry.values.get("caption")
        if not isinstance(caption, str):
            raise entry.wrong("caption", "a text")
        _of(said, entry, "image_id", captions).append(caption.strip())
    boxes = _coco_boxes(instances) if instances is not None else {}
    for picture in whole.records("images"):
        name = picture.name("id")
        yield Facts(
            id=name,
            image=picture.text("file_name"),
            origin=picture.where,
            captions=tuple(said[name]),
            boxes=tuple(boxes.get(name, ())),
        )


def _coco_boxes(file: Path) -> dict[str, list[Labelled]]:
    whole = Record.of(load_json(file), str(file))
    labels = {row.name("id"): row.text("name") for row in whole.records("categories")}
    sizes = {row.name("id"): (row.number("width"), row.number("height")) for row in whole.records("images")}
    found: dict[str, list[Labelled]] = {}
    for row in whole.records("annotations"):
        if row.values.get("iscrowd"):
            continue
        label, size = _of(labels, row, "category_id", file), _of(sizes, row, "image_id", file)
        left, top, width, height = row.numbers("bbox", 4)
        across = (_inside(left, size[0]), _inside(left + width, size[0]))
        down = (_inside(top, size[1]), _inside(top + height, size[1]))
        box = (across[0], down[0], across[1], down[1])
        found.setdefault(row.name("image_id"), []).append(Labelled(label=label, box=box))
    return found


def _inside(pixels: float, side: float) -> float:
    """A share of a side; what stands over the edge by rounding alone is cut."""
    if side <= 0:
        return math.nan
    return (min(max(pixels, 0.0), side) if -_ROUNDING <= pixels <= side + _ROUNDING else pixels) / side


def _of(table: Mapping[str, T], row: Record, key: str, file: Path) -> T:
    name = row.name(key)
    if name not in table:
        raise DataError(f"{row.where} has '{key}' = {name}, which {file} does not list; expected one release")
    return table[name]


def _labelled(row: Record) -> Labelled:
    left, top, right, bottom = row.numbers("box", 4)
    return Labelled(label=row.text("label"), box=(left, top, right, bottom))
