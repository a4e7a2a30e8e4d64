"""Asking a run about pictures and texts, pair by pair: whether they belong together, and how alike they are."""

from collections.abc import Callable, Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.errors import UsageError
from isthmus.core.protocols import Contrasts, Encoded, Matches
from isthmus.data.collate import collate
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.samples import ImageRef, Sample
from isthmus.run.load import LoadedRun

Pair = tuple[ImageRef, str]
"""A picture and a text."""


@torch.no_grad()
def match_probabilities(loaded: LoadedRun, pairs: Sequence[Pair], *, batch_size: int = 64) -> list[float]:
    """How likely each text belongs to its picture, by the softmax of "no" and "yes".

    Args:
        loaded: A run whose model matches.
        pairs: Pictures and texts.
        batch_size: Pairs that are looked at together; what is said changes by rounding alone.

    Raises:
        UsageError: The run's model matches nothing.
        BadSample: A picture cannot be read.
    """
    matcher: object = loaded.workshop.model
    processor = loaded.workshop.processor
    if not isinstance(matcher, Matches) or not isinstance(processor, DualEncoderProcessor):
        raise UsageError(
            f"{loaded.directory.path} holds a {loaded.workshop.recipe.final_model.kind}, which does not match pictures "
            "with texts; use a run of kind med or qformer_pretrainer"
        )

    def likely(encoded: Encoded, batch: Batch) -> Float[Tensor, " pair"]:
        every = torch.arange(len(batch), device=next(loaded.workshop.model.parameters()).device)
        return matcher.match(encoded, batch, images=every, texts=every).float().softmax(dim=1)[:, 1]

    return _of_pairs(loaded, processor, pairs, batch_size, likely)


@torch.no_grad()
def similarities(loaded: LoadedRun, pairs: Sequence[Pair], *, batch_size: int = 64) -> list[float]:
    """The cosine of each text with its picture, within -1 and 1; of a picture with several vectors the largest.

    Args:
        loaded: A run whose model contrasts.
        pairs: Pictures and texts.
        batch_size: Pairs that are looked at together; what is said changes by rounding alone.

    Raises:
        UsageError: The run's model compares nothing.
        BadSample: A picture cannot be read.
    """
    comparer: object = loaded.workshop.model
    processor = loaded.workshop.processor
    if not isinstance(comparer, Contrasts) or not isinstance(processor, DualEncoderProcessor):
        raise UsageError(
            f"{loaded.directory.path} holds a {loaded.workshop.recipe.final_model.kind}, which does not compare "
            "pictures with texts; use a run of kind dual_encoder, med or qformer_pretrainer"
        )

    def alike(encoded: Encoded, batch: Batch) -> Float[Tensor, " pair"]:
        del batch
        assert encoded.image_views is not None
        assert encoded.text_vectors is not None
        cosines = einsum(encoded.image_views, encoded.text_vectors, "pair view dim, pair dim -> pair view")
        return cosines.float().amax(dim=1)

    return _of_pairs(loaded, processor, pairs, batch_size, alike)


def _of_pairs(
    loaded: LoadedRun,
    processor: DualEncoderProcessor,
    pairs: Sequence[Pair],
    batch_size: int,
    score: Callable[[Encoded, Batch], Float[Tensor, " pair"]],
) -> list[float]:
    """What `score` says of each pair, from batches that hold one picture and its text a row."""
    found: list[float] = []
    device = next(loaded.workshop.model.parameters()).device
    with loaded.number_format():
        for first in range(0, len(pairs), batch_size):
            samples = [
                Sample(id=image.name, origin=image.name, images=(image,), captions=(text,))
                for image, text in pairs[first : first + batch_size]
            ]
            rows = [processor.row(sample, choice=0) for sample in samples]
            batch = collate(rows, pad_id=processor.pad_id).to(device)
            found += score(loaded.workshop.model.encode(batch), batch).tolist()
    return found
