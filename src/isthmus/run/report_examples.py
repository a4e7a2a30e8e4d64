"""The rows of the latest evaluation that a run's page shows, chosen so that mistakes are among them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from PIL import Image

from isthmus.build.sources import build_source
from isthmus.config.evaluation import Task
from isthmus.config.recipe import Recipe
from isthmus.core.errors import DataError, IsthmusError
from isthmus.data.samples import Source
from isthmus.reports.examples import (
    AnswerExample,
    CaptionExample,
    Examples,
    Picture,
    RetrievalExample,
    RetrievalHit,
    StripExample,
    choose_rows,
)
from isthmus.run.evaluations import judged_of
from isthmus.run.report_results import split_of

Json = Mapping[str, Any]
"""An object from one of the run's JSON files."""

NUM_EXAMPLES = 12
NUM_NAMED = 3
"""Reasons that are told of why pictures are missing."""
MAX_PX = 640
"""Pictures are shrunk to this as soon as they are read: 60 large photos at once would fill the memory."""


def examples_of(recipe: Recipe, measured: Json, folder: Path) -> tuple[Examples, tuple[str, ...]]:
    """Twelve rows of the latest evaluation with their pictures, and sentences on what had to be left out.

    Answers are evenly spaced with at least three mistakes, captions the best, middling and worst by CIDEr, retrievals
    evenly spaced by rank; strips of pictures lie in the run directory, `folder`. Answers are shown without pictures
    where these cannot be read; the others are left out.
    """
    rows = measured.get("examples", [])
    if not rows or recipe.evaluation is None:
        return Examples(), ()
    name = measured.get("examples_source", recipe.evaluation.test)
    album = _Album(recipe, name)
    where = f"the {len(rows):,} rows of {name}"
    judged = measured.get("evaluation", {}).get(split_of(recipe, name), {})
    task: Task = measured.get("examples_task", judged.get("task", recipe.evaluation.task))
    match task:
        case "questions" | "classification":
            chosen = choose_rows([row["right"] for row in rows], NUM_EXAMPLES)
            said = f"Evenly spaced over {where}, with at least three mistakes where there are."
            answers = tuple(_answer(rows[index], album) for index in chosen)
            return Examples(answers=answers, chosen_by=said), album.notes()
        case "captioning":
            chosen = best_middle_worst([row["cider"] for row in rows], NUM_EXAMPLES)
            said = f"The best, the middling and the worst of {where} by CIDEr, in this order."
            captions = [_caption(rows[index], album) for index in chosen]
            return Examples(captions=tuple(filter(None, captions)), chosen_by=said), album.notes()
        case "retrieval":
            ranks = [row["rank"] for row in rows]
            said = f"Evenly spaced over {len(rows):,} texts of {name} by the place of the right photo."
            total = _num_candidates(recipe, measured, name, rows)
            found = [_retrieval(rows[index], album, total) for index in spread_by_rank(ranks, NUM_EXAMPLES)]
            return Examples(retrievals=tuple(filter(None, found)), chosen_by=said), album.notes()
        case "reconstruction":
            strips = [_strip(row, folder) for row in rows if "strip" in row]
            said = f"The first {len(strips)} of {where}: the picture, what the encoder saw of it, and what was rebuilt."
            return Examples(strips=tuple(filter(None, strips)), chosen_by=said), ()
        case "zero_shot" | "probe" | "regions":
            return Examples(), ()


def best_middle_worst(scores: Sequence[float], count: int) -> tuple[int, ...]:
    """Indices of the best, the middling and the worst scores, a third of `count` each, highest score first."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if len(order) <= count:
        return tuple(order)
    third = count // 3
    middle = count - 2 * third
    start = (len(order) - middle) // 2
    return (*order[:third], *order[start : start + middle], *order[len(order) - third :])


def spread_by_rank(ranks: Sequence[int], count: int) -> tuple[int, ...]:
    """Indices evenly spaced over the ranks in ascending order, from the first to the last."""
    order = sorted(range(len(ranks)), key=lambda index: ranks[index])
    if len(order) <= count:
        return tuple(order)
    return tuple(order[step * (len(order) - 1) // (count - 1)] for step in range(count))


@final
class _Album:
    """Pictures by row of a source, each read once; what cannot be read is counted and named."""

    def __init__(self, recipe: Recipe, name: str) -> None:
        self._source: Source | None = None
        self._pictures: dict[int, tuple[Picture, ...]] = {}
        self._reasons: list[str] = []
        if name not in recipe.data:
            self._reasons.append(f"{name} is no source of the recipe")
            return
        try:
            self._source = build_source(recipe.data[name], recipe.data)
        except (IsthmusError, OSError) as error:
            self._reasons.append(str(error))

    def pictures(self, row: int) -> tuple[Picture, ...]:
        """The pictures of a row that can be read."""
        if row not in self._pictures:
            self._pictures[row] = () if self._source is None else self._read(self._source, row)
        return self._pictures[row]

    def first(self, row: int) -> Picture | None:
        """The first picture of a row, or None where none can be read."""
        return next(iter(self.pictures(row)), None)

    def notes(self) -> tuple[str, ...]:
        """One sentence on what is missing, or none."""
        if not self._reasons:
            return ()
        more = f"; and {len(self._reasons) - NUM_NAMED} more" if len(self._reasons) > NUM_NAMED else ""
        return (f"Pictures of examples are left out: {'; '.join(self._reasons[:NUM_NAMED])}{more}.",)

    def _read(self, source: Source, row: int) -> tuple[Picture, ...]:
        if row >= len(source):
            self._reasons.append(f"row {row} is not there any more ({source.format})")
            return ()
        found: list[Picture] = []
        try:
            for image in source.sample(row).images:
                found.append(Picture(image=_small(image.picture()), name=image.name))
        except (DataError, OSError) as error:
            self._reasons.append(str(error))
        return tuple(found)


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((MAX_PX, MAX_PX), Image.Resampling.LANCZOS)
    return small


def _answer(row: Json, album: _Album) -> AnswerExample:
    return AnswerExample(
        pictures=album.pictures(row["row"]),
        question=row["question"] or "",
        answer=row["answer"],
        truth=row["truth"],
        right=row["right"],
        kind=row["kind"],
        blank_answer=row["blank_answer"],
    )


def _strip(row: Json, folder: Path) -> StripExample | None:
    file = folder / row["strip"]
    if not file.is_file():
        return None
    picture = Picture(image=file.read_bytes(), name=f"row {row['row']}")
    return StripExample(picture=picture, label=f"error {row['error']:.3f}")


def _caption(row: Json, album: _Album) -> CaptionExample | None:
    picture = album.first(row["row"])
    if picture is None:
        return None
    return CaptionExample(
        picture=picture,
        caption=row["caption"],
        references=tuple(row["references"]),
        score=f"CIDEr {row['cider']:.2f}",
        other_caption=row["other_caption"],
    )


def _retrieval(row: Json, album: _Album, num_candidates: int) -> RetrievalExample | None:
    pictures = {index: album.first(index) for index in (*row["hits"], row["row"])}
    hits = [
        RetrievalHit(picture=picture, right=index == row["row"])
        for index in row["hits"]
        if (picture := pictures[index]) is not None
    ]
    if len(hits) < len(row["hits"]):
        return None
    return RetrievalExample(
        query=row["query"],
        hits=tuple(hits),
        rank=row["rank"],
        num_candidates=num_candidates,
        right_picture=None if row["row"] in row["hits"] else pictures[row["row"]],
    )


def _num_candidates(recipe: Recipe, measured: Json, name: str, rows: Sequence[Json]) -> int:
    """How many photos were searched: what the evaluation of this source says, or at least those that occur."""
    judged = judged_of(measured, split_of(recipe, name), "retrieval")
    return 1 + max(max(row["row"], *row["hits"]) for row in rows) if judged is None else judged["n"]
