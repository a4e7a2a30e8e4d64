"""Judging marked regions: of the things in one picture, which does a mask mean?"""

from typing import Any

import numpy as np
import torch
from einops import rearrange

from isthmus.core.errors import DataError
from isthmus.data.collate import collate
from isthmus.data.marked import Region, everywhere, nowhere
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.processor import Picture, Row
from isthmus.data.samples import Sample, Source
from isthmus.evaluation.statistics import proportion
from isthmus.models.dual_encoder import DualEncoder
from isthmus.run.load import LoadedRun
from isthmus.run.retrieval import compared, embed_texts

_MASKS = ("real", "empty", "whole", "other")


@torch.inference_mode()
def judge_regions(loaded: LoadedRun, source: Source, *, seed: int) -> dict[str, Any]:
    """How often the caption nearest to a picture with one thing marked is that thing's, among those of its picture.

    Only things whose caption no other thing of the picture shares are asked about, where a picture has two or more.
    The controls mark nothing, everything, and another of the things: a model that reads the mask then names that other
    one, so its share of right answers falls below chance.

    Raises:
        DataError: No picture has two things with captions of their own.
    """
    model, processor = compared(loaded)
    right: dict[str, list[bool]] = {mask: [] for mask in _MASKS}
    pictures: list[int] = []
    chances: list[float] = []
    with loaded.number_format():
        for index in range(len(source)):
            sample = source.sample(index)
            regions = _distinct(sample)
            if len(regions) < 2:
                continue
            texts = embed_texts(model, processor, [region.caption for region in regions])
            for mask, images in _images(model, processor, sample, regions).items():
                named = (images @ texts.T).argmax(dim=1)
                right[mask] += (named == torch.arange(len(regions))).tolist()
            pictures += [index] * len(regions)
            chances += [1 / len(regions)] * len(regions)
    if not pictures:
        raise DataError(
            f"no picture of {source.format} has two regions with captions of their own; "
            "expected pictures of several things"
        )
    measured = {
        mask: {
            "accuracy": proportion(
                np.array(hits), generator=np.random.default_rng(seed), clusters=pictures
            ).to_json()
        }
        for mask, hits in right.items()
    }
    return {
        "task": "regions",
        "metrics": measured["real"],
        "controls": {mask: measured[mask] for mask in _MASKS[1:]},
        "chance": float(np.mean(chances)),
        "n": len(pictures),
        "examples": [],
    }


def _distinct(sample: Sample) -> list[Region]:
    """The regions whose caption is theirs alone."""
    said = [region.caption for region in sample.regions]
    return [region for region in sample.regions if said.count(region.caption) == 1]


def _images(
    model: DualEncoder, processor: DualEncoderProcessor, sample: Sample, regions: list[Region]
) -> dict[str, torch.Tensor]:
    """Vectors of the picture under each kind of mask, one for each region that is asked about."""
    image, prepared = sample.images[0], processor.pictures.images
    picture = processor.pictures(image)
    assert picture.pixels is not None
    marked = [processor.marked(picture, region, name=image.name) for region in regions]
    even = {
        "empty": Picture(id=picture.id, pixels=picture.pixels, alpha=nowhere(prepared)),
        "whole": Picture(id=picture.id, pixels=picture.pixels, alpha=everywhere(prepared)),
    }
    rows = [Row(sample_id=sample.id, pictures=(one,)) for one in (*marked, *even.values())]
    batch = collate(rows, pad_id=processor.pad_id).to(next(model.parameters()).device)
    vectors = model.image_vectors(batch)
    assert vectors is not None
    real, (empty, whole) = vectors[: len(regions)].cpu(), vectors[len(regions) :].cpu()
    return {
        "real": real,
        "empty": _repeated(empty, len(regions)),
        "whole": _repeated(whole, len(regions)),
        "other": real.roll(-1, dims=0),
    }


def _repeated(vector: torch.Tensor, number: int) -> torch.Tensor:
    return rearrange(vector, "dim -> 1 dim").expand(number, -1)
