"""Asking a run whether texts belong to pictures: the word of its match head, pair by pair."""

from collections.abc import Sequence

import torch

from isthmus.core.errors import UsageError
from isthmus.core.protocols import Matches
from isthmus.data.collate import collate
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.samples import ImageRef, Sample
from isthmus.run.load import LoadedRun


@torch.no_grad()
def match_probabilities(
    loaded: LoadedRun, pairs: Sequence[tuple[ImageRef, str]], *, batch_size: int = 64
) -> list[float]:
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
    device = next(loaded.workshop.model.parameters()).device
    found: list[float] = []
    with loaded.number_format():
        for first in range(0, len(pairs), batch_size):
            samples = [
                Sample(id=image.name, origin=image.name, images=(image,), captions=(text,))
                for image, text in pairs[first : first + batch_size]
            ]
            rows = [processor.row(sample, choice=0) for sample in samples]
            batch = collate(rows, pad_id=processor.pad_id).to(device)
            every = torch.arange(len(rows), device=device)
            encoded = loaded.workshop.model.encode(batch)
            logits = matcher.match(encoded, batch, images=every, texts=every)
            found += logits.float().softmax(dim=1)[:, 1].tolist()
    return found
