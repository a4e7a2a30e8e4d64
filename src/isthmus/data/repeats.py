"""Texts that stand in a step more than once: a contrastive loss pushes each away from the picture of its equal."""

import logging
from collections import Counter
from collections.abc import Sequence

from isthmus.core.batch import Batch

TOLERATED = 0.02
"""Share of repeated texts up to which nothing is said; five captions of each of 500 photos have about 0.01."""

_LOG = logging.getLogger(__name__)


def repeated_share(batches: Sequence[Batch]) -> float:
    """Share of a step's texts that another picture's text of the step equals, word for word."""
    owners: Counter[tuple[int, ...]] = Counter()
    texts: list[tuple[int, ...]] = []
    for batch in batches:
        if batch.token_ids is None or batch.attention_mask is None:
            continue
        rows = (
            batch.image_of_text.tolist() if batch.image_of_text is not None else range(len(batch.token_ids))
        )
        found = [
            (tuple(ids[mask].tolist()), row)
            for ids, mask, row in zip(batch.token_ids, batch.attention_mask, rows, strict=True)
        ]
        owners.update(text for text, _ in set(found))
        texts += [text for text, _ in found]
    return sum(owners[text] > 1 for text in texts) / max(len(texts), 1)


def warn_of_repeats(batches: Sequence[Batch], *, stage: str) -> None:
    """Say what share of a step's texts is repeated, where it is more than tolerated."""
    share = repeated_share(batches)
    if share > TOLERATED:
        _LOG.warning(
            "stage %s: %.0f%% of the texts of its first step stand there more than once, with other pictures; the loss "
            "pushes these apart, so make batches smaller or captions more specific if that is not meant",
            stage,
            100 * share,
        )
