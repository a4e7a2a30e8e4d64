"""Recall at k and median rank between photos and their captions, both ways, where a tie is a miss.

The rank of a query is 1 plus the number of *other* candidates that score at least as high as its best true
candidate. Text to image: one true photo, all other photos are others. Image to text: the photo's own captions
are true (the best of them counts, the rest are not others), all captions of other photos are others. A model
that gives every pair the same score therefore never hits, whatever the order of the candidates.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.statistics import (
    Difference,
    Estimate,
    bootstrap_metric,
    paired_difference,
    proportion,
)

RECALLS = (1, 5, 10)
# Scores of equal vectors may differ in their last bits with the place in the matrix product; float64 sums of
# products are right to about 1e-15 of the largest norms, so scores this close, as a share of those norms, are
# ties.
_TIE = 1e-12


@final
@dataclass(frozen=True)
class Ranking:
    """The ranks of all queries in one direction.

    Args:
        ranks: 1 is best.
        photos: The photo each query belongs to; queries of one photo are drawn together in intervals.
        worst: The rank a query has when every score is the same, one a query.
    """

    ranks: Int[np.ndarray, " query"]
    photos: Int[np.ndarray, " query"]
    worst: Int[np.ndarray, " query"]

    def hits(self, k: int) -> Bool[np.ndarray, " query"]:
        """Return which queries have a true candidate among the first `k`, for paired tests.

        Raises:
            DataError: So few candidates exist that some query cannot miss.
        """
        if k < 1:
            raise UsageError(f"recall at {k} has no meaning; expected 1 or more")
        if k >= self.worst.min():
            raise DataError(
                f"recall at {k} cannot miss where a query has {self.worst.min() - 1} wrong candidates; "
                f"expected at least {k}; use more rows or a smaller k"
            )
        return self.ranks <= k

    def recall(self, k: int, *, generator: np.random.Generator) -> Estimate:
        """Return the share of queries that hit among the first `k`."""
        return proportion(self.hits(k), generator=generator, clusters=self.photos.tolist())

    def median_rank(self, *, generator: np.random.Generator) -> Estimate:
        """Return the median rank with a bootstrap interval."""

        def median(rows: Int[np.ndarray, " row"]) -> float:
            return float(np.median(self.ranks[rows]))

        return bootstrap_metric(median, len(self.ranks), generator=generator, clusters=self.photos.tolist())

    def to_json(self, *, generator: np.random.Generator, recalls: Sequence[int] = RECALLS) -> dict[str, dict]:
        """Return `recall_at_1`, ... and `median_rank`, each with its interval."""
        result = {f"recall_at_{k}": self.recall(k, generator=generator).to_json() for k in recalls}
        return result | {"median_rank": self.median_rank(generator=generator).to_json()}


@final
@dataclass(frozen=True)
class Retrieval:
    """Both directions of image-text retrieval over one set of photos."""

    text_to_image: Ranking
    image_to_text: Ranking

    def to_json(self, *, generator: np.random.Generator, recalls: Sequence[int] = RECALLS) -> dict[str, dict]:
        """Return the numbers of both directions."""
        return {
            "text_to_image": self.text_to_image.to_json(generator=generator, recalls=recalls),
            "image_to_text": self.image_to_text.to_json(generator=generator, recalls=recalls),
        }


def rank_vectors(
    images: Float[Tensor, "image dim"],
    texts: Float[Tensor, "text dim"],
    photo_of_text: Int[Tensor, " text"],
    *,
    chunk: int = 512,
) -> Retrieval:
    """Rank photos for every caption and captions for every photo by the dot product of their vectors.

    Args:
        images: One vector a photo; give unit vectors for cosine similarity.
        texts: One vector a caption.
        photo_of_text: The row in `images` that each caption describes; every photo needs at least one
            caption.
        chunk: How many queries are scored at a time; changes memory, not ranks.

    Raises:
        DataError: A vector is not finite, the sizes do not fit, or a photo has no caption.
    """
    if len(texts) != len(photo_of_text) or images.shape[1] != texts.shape[1]:
        raise DataError(
            f"image vectors {tuple(images.shape)}, text vectors {tuple(texts.shape)} and "
            f"{len(photo_of_text)} photo "
            "numbers do not fit; expected equal widths and one photo number a text"
        )
    images, texts, photo_of_text = images.double().cpu(), texts.double().cpu(), photo_of_text.long().cpu()
    _check_photos(photo_of_text, len(images))
    for name, vectors in (("image", images), ("text", texts)):
        if not vectors.isfinite().all():
            bad = int((~vectors.isfinite()).any(dim=1).nonzero()[0])
            raise DataError(f"{name} vector {bad} is not finite; look at that {name} and at the weights")
    tie = _TIE * float(images.norm(dim=1).max() * texts.norm(dim=1).max())
    photo_numbers = torch.arange(len(images))
    by_text = [
        _ranks(
            texts[start : start + chunk] @ images.T, photo_of_text[start : start + chunk], photo_numbers, tie
        )
        for start in range(0, len(texts), chunk)
    ]
    by_image = [
        _ranks(
            images[start : start + chunk] @ texts.T, photo_numbers[start : start + chunk], photo_of_text, tie
        )
        for start in range(0, len(images), chunk)
    ]
    return _retrieval(torch.cat(by_text), torch.cat(by_image), photo_of_text)


def rank_scores(scores: Float[Tensor, "image text"], photo_of_text: Int[Tensor, " text"]) -> Retrieval:
    """Rank both ways by given scores, for example of a matching head; equal scores are ties.

    Raises:
        DataError: A score is not finite, the sizes do not fit, or a photo has no caption.
    """
    if scores.shape[1] != len(photo_of_text) or not scores.isfinite().all():
        raise DataError(
            f"scores of shape {tuple(scores.shape)} came with {len(photo_of_text)} photo numbers; "
            f"expected finite "
            "scores, one column a text"
        )
    scores, photo_of_text = scores.double().cpu(), photo_of_text.long().cpu()
    _check_photos(photo_of_text, len(scores))
    photo_numbers = torch.arange(len(scores))
    by_text = _ranks(rearrange(scores, "image text -> text image"), photo_of_text, photo_numbers, 0.0)
    return _retrieval(by_text, _ranks(scores, photo_numbers, photo_of_text, 0.0), photo_of_text)


def first_of_equal(texts: Iterable[Hashable]) -> Int[Tensor, " text"]:
    """Return for each text the place of the first one equal to it.

    What was computed for that one has to stand for all of them: the same words in another batch, padded to another
    length, give another last bit, and equal captions of two photos would be told apart by that.
    """
    places: dict[Hashable, int] = {}
    return torch.tensor(
        [places.setdefault(text, place) for place, text in enumerate(texts)], dtype=torch.long
    )


def equal_captions(captions: Sequence[str], photos: Sequence[int]) -> float:
    """Return the share of captions that another photo has word for word, case and outer space aside.

    Of two such captions at most one finds its photo first, and where it is the best a photo has, that photo finds none
    first, whatever the model: a tie is a miss. Photos seldom share a caption, drawn scenes often do.

    Args:
        captions: All captions.
        photos: The photo of each.
    """
    owners: dict[str, set[int]] = {}
    said = [" ".join(caption.lower().split()) for caption in captions]
    for words, photo in zip(said, photos, strict=True):
        owners.setdefault(words, set()).add(photo)
    return sum(len(owners[words]) > 1 for words in said) / max(len(said), 1)


def compare_recall(first: Ranking, second: Ranking, k: int, *, generator: np.random.Generator) -> Difference:
    """Return first minus second recall at `k` on the same queries, with photos drawn together.

    Raises:
        DataError: The two rankings are of other queries.
    """
    if not np.array_equal(first.photos, second.photos):
        raise DataError(
            "the two rankings are of other queries; expected the same captions and photos in one order"
        )
    return paired_difference(
        first.hits(k), second.hits(k), generator=generator, clusters=first.photos.tolist()
    )


def _ranks(
    scores: Float[Tensor, "query candidate"],
    photo_of_query: Int[Tensor, " query"],
    photo_of_candidate: Int[Tensor, " candidate"],
    tie: float,
) -> Int[Tensor, " query"]:
    true = rearrange(photo_of_query, "query -> query 1") == photo_of_candidate
    best = scores.masked_fill(~true, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best - tie) & ~true).sum(dim=1)


def _check_photos(photo_of_text: Int[Tensor, " text"], num_images: int) -> None:
    outside = (photo_of_text < 0) | (photo_of_text >= num_images)
    without = num_images - len(photo_of_text[~outside].unique())
    if num_images == 0 or outside.any() or without:
        raise DataError(
            "retrieval needs a photo for each caption and a caption for each photo, found "
            f"{int(outside.sum())} captions of no photo and {without} of {num_images} photos without a "
            f"caption"
        )


def _retrieval(
    by_text: Int[Tensor, " text"], by_image: Int[Tensor, " image"], photo_of_text: Int[Tensor, " text"]
) -> Retrieval:
    photos, num_images = photo_of_text.numpy(), len(by_image)
    text_worst = np.full(len(photos), num_images)
    image_worst = 1 + len(photos) - np.bincount(photos, minlength=num_images)
    return Retrieval(
        Ranking(by_text.numpy(), photos, text_worst),
        Ranking(by_image.numpy(), np.arange(num_images), image_worst),
    )
