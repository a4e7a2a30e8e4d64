"""Judging models that contrast, match and caption: retrieval, matching among hard pairs, the next word of captions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.batch import Batch
from isthmus.core.randomness import seed_of
from isthmus.data.controls import picture_ids
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.passes import Pass
from isthmus.data.samples import Source
from isthmus.evaluation.controls import shuffled
from isthmus.evaluation.retrieval import RECALLS, Retrieval, equal_captions, first_of_equal, rank_scores
from isthmus.evaluation.statistics import proportion
from isthmus.models.med import Med
from isthmus.models.qformer_pretrainer import QFormerPretrainer
from isthmus.objectives.captioning import Captioning
from isthmus.objectives.matching import Matching
from isthmus.objectives.representations import similarities
from isthmus.run.load import LoadedRun
from isthmus.run.reranking import reranked

_ROWS_AT_ONCE = 64

Pretrained = QFormerPretrainer | Med
"""Models of vision and language that learn by contrast, matching and captions."""


@final
@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """What was found on some rows, one picture and one caption each.

    Attributes:
        scores: The largest similarity of each picture's vectors and each text.
        first: For each text the place of the first one of the same words, whose scores are its own.
        matched: Whether each right pair was taken for one.
        refused: Whether each wrong pair, drawn hard within its batch, was refused.
        written: Whether each word of the captions was the likeliest one.
    """

    scores: Float[Tensor, "image text"]
    first: Int[Tensor, " text"]
    matched: np.ndarray
    refused: np.ndarray
    written: np.ndarray

    @property
    def retrieval(self) -> Retrieval:
        """Ranks both ways among all rows."""
        return rank_scores(self.scores, torch.arange(len(self.scores)))

    @property
    def matching(self) -> float:
        """The mean of the shares of right and of wrong pairs that were judged rightly; guessing gives one half."""
        return float(self.matched.mean() + self.refused.mean()) / 2


@torch.no_grad()
def look(model: Pretrained, batches: Iterable[Batch]) -> FirstStage:
    """Run a model over rows; wrong pairs are drawn by the global generator."""
    views, texts, words = [], [], []
    found: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    matching, captioning = Matching(model), Captioning(model)
    for batch in batches:
        encoded = model.encode(batch)
        assert encoded.image_views is not None
        assert encoded.text_vectors is not None
        views.append(encoded.image_views.float().cpu())
        texts.append(encoded.text_vectors.float().cpu())
        words += _words(batch)
        if len(batch) > 1:
            pairs = matching.pairs(encoded, batch)
            said = model.match(encoded, batch, images=pairs.images, texts=pairs.texts).argmax(dim=1)
            is_right = (said == pairs.together).cpu()
            found["matched"].append(is_right[pairs.together.cpu() == 1])
            found["refused"].append(is_right[pairs.together.cpu() == 0])
        logits, targets = captioning.predictions(encoded, batch)
        found["written"].append((logits.argmax(dim=1) == targets).cpu())
    first = first_of_equal(words)
    scores = similarities(torch.cat(views), torch.cat(texts))[:, first]
    shares = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    return FirstStage(scores=scores, first=first, **shares)


def _words(batch: Batch) -> list[tuple[int, ...]]:
    """The tokens of each text without padding."""
    assert batch.token_ids is not None
    assert batch.attention_mask is not None
    return [
        tuple(ids[seen].tolist()) for ids, seen in zip(batch.token_ids, batch.attention_mask, strict=True)
    ]


def first_stage_values(model: Pretrained, batches: Iterable[Batch]) -> Mapping[str, float]:
    """The numbers of a validation."""
    found = look(model, batches)
    return {
        "val.text_to_image_r1": float(found.retrieval.text_to_image.hits(1).mean()),
        "val.image_to_text_r1": float(found.retrieval.image_to_text.hits(1).mean()),
        "val.matching_accuracy": found.matching,
        "val.caption_accuracy": float(found.written.mean()),
    }


def judge_first_stage(loaded: LoadedRun, model: Pretrained, source: Source, *, seed: int) -> dict[str, Any]:
    """All of it with intervals; retrieval also with the pictures of other rows.

    Where the recipe says `rerank`, retrieval is judged again after the best of each query were matched.
    """
    processor = loaded.workshop.processor
    assert isinstance(processor, DualEncoderProcessor)
    device = next(model.parameters()).device
    rows = Pass(source, processor, rows="captions", batch_size=_ROWS_AT_ONCE, purpose="training")
    evaluation, again = loaded.workshop.recipe.evaluation, {}
    generator = np.random.default_rng(seed)
    recalls = tuple(k for k in RECALLS if k < len(source))
    with loaded.number_format(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "first stage"))
        found = look(model, (batch.to(device) for batch, _ in rows))
        if evaluation is not None and evaluation.rerank is not None:
            ranked = reranked(
                model,
                lambda: (batch.to(device) for batch, _ in rows),
                found.scores,
                first=found.first,
                best=evaluation.rerank,
            )
            again = ranked.to_json(generator=generator, recalls=recalls)
    others = shuffled(picture_ids(source, len(source)), seed_of(seed, "shuffled") % 2**32)
    captions = [source.sample(index).captions[0] for index in range(len(source))]
    exchanged = rank_scores(found.scores[torch.as_tensor(others)], torch.arange(len(source)))
    return {
        "task": "retrieval",
        "metrics": found.retrieval.to_json(generator=generator, recalls=recalls)
        | {
            "matched": proportion(found.matched, generator=generator).to_json(),
            "refused": proportion(found.refused, generator=generator).to_json(),
            "caption_accuracy": proportion(found.written, generator=generator).to_json(),
            **{f"{way}_reranked": ranking for way, ranking in again.items()},
        },
        "controls": {"shuffled": exchanged.to_json(generator=generator, recalls=recalls)},
        "n": len(source),
        "equal_captions": equal_captions(captions, range(len(source))),
        "examples": [],
    }
