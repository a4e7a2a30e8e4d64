"""Retrieval in two steps: contrast finds the best of each query, and the match looks at these again."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from isthmus.core.batch import Batch
from isthmus.core.protocols import Matches, TrainableModel
from isthmus.evaluation.retrieval import Retrieval, rank_scores

_PAIRS_AT_ONCE = 256
_BEHIND = 1e4
"""What separates pairs that are looked at again from all others, whose order stays as it was."""


def reranked(
    model: TrainableModel,
    batches: Callable[[], Iterable[Batch]],
    scores: Float[Tensor, "image text"],
    *,
    first: Int[Tensor, " text"],
    best: int,
) -> Retrieval:
    """Rank both ways, the `best` of each query by the logit of "yes" plus their similarity (Li et al., 2022).

    Args:
        model: Encodes and matches.
        batches: The pictures and texts that the scores are about, one text each, in their order; read twice.
        scores: The similarity of each picture and each text.
        first: For each text the place of the first one of the same words, whose match is its own.
        best: How many of each query's candidates are looked at again.
    """
    of_text = _among_best(scores.T, best).T
    of_image = _among_best(scores, best)
    matched = _match_logits(model, batches, of_text | of_image)[:, first]
    again = scores + matched + _BEHIND
    every = torch.arange(len(scores))
    return Retrieval(
        text_to_image=rank_scores(torch.where(of_text, again, scores), every).text_to_image,
        image_to_text=rank_scores(torch.where(of_image, again, scores), every).image_to_text,
    )


def _among_best(scores: Float[Tensor, "query candidate"], best: int) -> Bool[Tensor, "query candidate"]:
    """Where each query's best scores stand; all that equal the last of them are among them."""
    return scores >= scores.topk(min(best, scores.shape[1]), dim=1).values[:, -1:]


@torch.no_grad()
def _match_logits(
    model: TrainableModel, batches: Callable[[], Iterable[Batch]], asked: Bool[Tensor, "image text"]
) -> Float[Tensor, "image text"]:
    """The logit of "yes" for each pair that is asked for, 0 for others; pictures are encoded batch by batch."""
    assert isinstance(model, Matches)
    token_ids, masks = [], []
    for batch in batches():
        assert batch.token_ids is not None
        assert batch.attention_mask is not None
        token_ids += list(batch.token_ids)
        masks += list(batch.attention_mask)
    texts = Batch(
        sample_ids=("",) * len(token_ids),
        token_ids=pad_sequence(token_ids, batch_first=True),
        attention_mask=pad_sequence(masks, batch_first=True),
    )
    found, first = torch.zeros(asked.shape), 0
    for batch in batches():
        encoded, device = model.encode(batch), token_ids[0].device
        pairs = asked[first : first + batch.num_images].nonzero()
        for some in pairs.split(_PAIRS_AT_ONCE):
            images, chosen = some[:, 0].to(device), some[:, 1].to(device)
            logits = model.match(encoded, texts, images=images, texts=chosen)
            found[first + some[:, 0], some[:, 1]] = logits[:, 1].float().cpu()
        first += batch.num_images
    return found
