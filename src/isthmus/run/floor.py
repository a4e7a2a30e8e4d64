"""What retrieval reaches without training: ridge regression on the very features that a run sees, and its controls."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image

from isthmus.core.randomness import seed_of
from isthmus.data.samples import Source
from isthmus.evaluation.controls import shuffled
from isthmus.evaluation.retrieval import Retrieval, rank_vectors
from isthmus.evaluation.ridge import ALPHA, Idf, fit_caption_ridge
from isthmus.run.load import LoadedRun
from isthmus.run.pictures import mean_features

_PIXELS = 16
_MEAN_COLOUR, _HALF_RANGE = 127.5, 127.5

Table = Float[np.ndarray, "image feature"]


@final
@dataclass(frozen=True)
class Side:
    """One split as the floor sees it: a vector and the captions of each photo, in the order of the source."""

    vectors: Table
    captions: list[list[str]]


@final
@dataclass(frozen=True, kw_only=True)
class Floors:
    """Retrieval by ridge regression on one split.

    Attributes:
        ridge: From the run's own frozen encoder, mean over the grid: the floor to beat.
        ridge_plain_idf: The same with ln(n / df) as weight of words, which is stronger from text to image.
        pixels: From the photo scaled to 16 x 16 pixels.
        shuffled: From the encoder, fitted on photos that have another photo's captions.
    """

    ridge: Retrieval
    ridge_plain_idf: Retrieval
    pixels: Retrieval
    shuffled: Retrieval


def measure_floors(
    loaded: LoadedRun, train: Source, judged: Source, *, seed: int, alpha: float = ALPHA
) -> Floors:
    """Fit on one source and rank the photos and captions of another.

    Args:
        loaded: The run whose encoder (or feature store) gives the features.
        train: What the regression is fitted on.
        judged: What is ranked.
        seed: Decides the shuffled pairs.
        alpha: Weight of the penalty.

    Raises:
        DataError: A picture cannot be read, or a photo has no caption.
    """
    known, asked = _encoded(loaded, train), _encoded(loaded, judged)
    small_known, small_asked = (
        Side(small_pixels(source), side.captions) for source, side in ((train, known), (judged, asked))
    )
    names = range(len(known.captions))
    others = shuffled(names, seed_of(seed, "shuffled pairs") % 2**32)
    exchanged = Side(known.vectors, [known.captions[other] for other in others])
    return Floors(
        ridge=rank_by_ridge(known, asked, alpha=alpha),
        ridge_plain_idf=rank_by_ridge(known, asked, alpha=alpha, idf="plain"),
        pixels=rank_by_ridge(small_known, small_asked, alpha=alpha),
        shuffled=rank_by_ridge(exchanged, asked, alpha=alpha),
    )


def rank_by_ridge(known: Side, asked: Side, *, alpha: float = ALPHA, idf: Idf = "smooth") -> Retrieval:
    """Fit on `known` and rank both ways within `asked`; ties count as misses.

    Raises:
        DataError: A photo has no caption, or a feature is not finite.
    """
    fitted = fit_caption_ridge(known.vectors, known.captions, alpha=alpha, idf=idf)
    texts = [caption for own in asked.captions for caption in own]
    photo_of_text = [photo for photo, own in enumerate(asked.captions) for _ in own]
    return rank_vectors(
        torch.from_numpy(fitted.picture_vectors(asked.vectors)),
        torch.from_numpy(fitted.caption_vectors(texts)),
        torch.tensor(photo_of_text),
    )


def small_pixels(source: Source) -> Table:
    """Each sample's first picture as 16 x 16 RGB values in [-1, 1].

    Raises:
        BadSample: A picture cannot be read.
    """
    size = (_PIXELS, _PIXELS)
    small = [
        np.asarray(source.sample(row).images[0].picture().resize(size, Image.Resampling.BOX))
        for row in range(len(source))
    ]
    flat = rearrange(np.stack(small), "image row column channel -> image (row column channel)")
    return (flat.astype(np.float64) - _MEAN_COLOUR) / _HALF_RANGE


def _encoded(loaded: LoadedRun, source: Source) -> Side:
    vectors = mean_features(loaded, source).double().numpy()
    return Side(vectors, [list(source.sample(row).captions) for row in range(len(source))])
