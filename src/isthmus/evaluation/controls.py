"""Which pictures stand in for the real ones, so that a model that only guesses shows it."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.core.errors import DataError


def shuffled(picture_ids: Sequence[Hashable], seed: int) -> Int[np.ndarray, " row"]:
    """Return for each row the row whose picture it gets: a permutation in which no row gets its own picture.

    Rows of one picture also never get that picture from each other. Each picture is used as often as before,
    so only the pairing changes. The rows are put in random order, those of one picture side by side, and
    turned by a random number of places that is too large to stay within a picture and too small to come round
    to it again.

    Args:
        picture_ids: What picture each row has, best a hash of its content (two names count as two).
        seed: The same seed gives the same pairing.

    Raises:
        DataError: One picture has more than half of the rows, or there are fewer than two rows.
    """
    n = len(picture_ids)
    most = max(Counter(picture_ids).values(), default=0)
    if n < 2 or 2 * most > n:
        raise DataError(
            f"no shuffling gives every row another picture: one picture has {most} of {n} rows, expected "
            "at most half; use rows with more pictures"
        )
    generator = np.random.default_rng(seed)
    place: dict[Hashable, int] = {}
    for row in generator.permutation(n):
        place.setdefault(picture_ids[row], len(place))
    # A stable sort of a second permutation: pictures in random order, rows of one picture too.
    rows = generator.permutation(n)
    order = rows[np.argsort([place[picture_ids[row]] for row in rows], kind="stable")]
    turn = int(generator.integers(most, n - most + 1))
    donors = np.empty(n, dtype=np.int64)
    donors[order] = np.roll(order, -turn)
    return donors


def most_similar_other(
    vectors: Float[Tensor, "row dim"], picture_ids: Sequence[Hashable], *, chunk: int = 1024
) -> Int[np.ndarray, " row"]:
    """Return for each row the row with the most similar other picture by cosine, the first if several.

    Args:
        vectors: One picture vector a row.
        picture_ids: What picture each row has; a row never gets its own picture from another row.
        chunk: How many rows are compared at a time.

    Raises:
        DataError: The lengths differ, a vector is not finite, or all rows have the same picture.
    """
    if len(vectors) != len(picture_ids) or len(set(picture_ids)) < 2:
        raise DataError(
            f"{len(vectors)} vectors came with {len(picture_ids)} rows of {len(set(picture_ids))} "
            f"pictures; expected "
            "one vector a row and at least two pictures"
        )
    if not vectors.isfinite().all():
        raise DataError(
            "a picture vector is not finite; look at the vision encoder's weights and at the pictures"
        )
    numbers: dict[Hashable, int] = {}
    picture = torch.tensor([numbers.setdefault(name, len(numbers)) for name in picture_ids])
    unit = functional.normalize(vectors.double().cpu(), dim=1)
    nearest = []
    for start in range(0, len(unit), chunk):
        own = rearrange(picture[start : start + chunk], "query -> query 1") == picture
        # Rounded, so that equal vectors stay equal whatever their place in the matrix product.
        likeness = (unit[start : start + chunk] @ unit.T).round(decimals=12).masked_fill(own, -torch.inf)
        nearest.append(likeness.numpy().argmax(axis=1))
    return np.concatenate(nearest)
