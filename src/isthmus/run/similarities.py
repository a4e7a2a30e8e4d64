"""Asking a run how alike pictures and texts are: the cosine of its two encoders, best over a picture's views."""

from collections.abc import Sequence

import torch

from isthmus.core.errors import UsageError
from isthmus.core.protocols import Contrasts
from isthmus.data.collate import collate
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.samples import ImageRef, Sample
from isthmus.run.load import LoadedRun


@torch.no_grad()
def similarities(
    loaded: LoadedRun, pairs: Sequence[tuple[ImageRef, str]], *, batch_size: int = 64
) -> list[float]:
    """The similarity of each text with its picture, within -1 and 1.

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
    device = next(loaded.workshop.model.parameters()).device
    found: list[float] = []
    with loaded.number_format():
        for first in range(0, len(pairs), batch_size):
            rows = [
                processor.row(
                    Sample(id=image.name, origin=image.name, images=(image,), captions=(text,)), choice=0
                )
                for image, text in pairs[first : first + batch_size]
            ]
            encoded = loaded.workshop.model.encode(collate(rows, pad_id=processor.pad_id).to(device))
            assert encoded.image_views is not None
            assert encoded.text_vectors is not None
            alike = torch.einsum("pvd,pd->pv", encoded.image_views, encoded.text_vectors)
            found += alike.amax(dim=1).tolist()
    return found
