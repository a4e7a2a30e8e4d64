"""CIDEr, BLEU-1 to 4 and ROUGE-L by the official COCO caption scorers (Chen et al., 2015), kept by row.

As in the official scorer, CIDEr's document frequencies come from the references of the very rows that are
scored, so a number depends on the whole set of rows and one row alone always scores 0. Intervals resample
rows with these frequencies held fixed.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from isthmus.core.errors import DataError
from isthmus.evaluation.bleu import ORDER, BleuCounts, count_ngrams
from isthmus.evaluation.statistics import (
    Difference,
    Estimate,
    bootstrap_mean,
    bootstrap_metric,
    paired_difference,
    paired_metric_difference,
)
from isthmus.evaluation.tokenization import tokenize


@final
@dataclass(frozen=True)
class CaptionScores:
    """Scores of one prediction a row against that row's references.

    Args:
        cider: One CIDEr a row (1.0 is the scale on which people score about 0.8); its mean is the corpus
            score.
        rouge_l: One ROUGE-L a row; its mean is the corpus score.
        bleu: What each row adds to corpus BLEU.
        predictions: The predictions as the scorers saw them.
        references: The references as the scorers saw them.
    """

    cider: Float[np.ndarray, " row"]
    rouge_l: Float[np.ndarray, " row"]
    bleu: BleuCounts
    predictions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]

    def corpus(self) -> dict[str, float]:
        """Return the official corpus scores: `cider`, `bleu_1` to `bleu_4`, `rouge_l`."""
        bleu = {f"bleu_{n + 1}": score for n, score in enumerate(self.bleu.corpus())}
        return {"cider": float(self.cider.mean()), **bleu, "rouge_l": float(self.rouge_l.mean())}

    def estimates(
        self, *, generator: np.random.Generator, clusters: Sequence[Hashable] | None = None
    ) -> dict[str, Estimate]:
        """Return the corpus scores with 95% intervals; `clusters` names each row's photo if photos repeat."""
        result = {"cider": bootstrap_mean(self.cider, generator=generator, clusters=clusters)}
        for order in range(ORDER):
            result[f"bleu_{order + 1}"] = bootstrap_metric(
                lambda rows, order=order: self.bleu.corpus(rows)[order],
                len(self.cider),
                generator=generator,
                clusters=clusters,
            )
        result["rouge_l"] = bootstrap_mean(self.rouge_l, generator=generator, clusters=clusters)
        return result


def score_captions(predictions: list[str], references: list[list[str]]) -> CaptionScores:
    """Tokenise and score; an empty prediction is a wrong caption that scores 0.

    Args:
        predictions: One caption a row.
        references: The human captions of each row, one or more.

    Raises:
        DataError: There is no row, the lengths differ, or a row has no reference with a word in it.
        MachineError: pycocoevalcap or Java is missing.
    """
    if not predictions or len(predictions) != len(references):
        raise DataError(
            f"caption scores need one list of references for each prediction, found {len(predictions)} "
            f"predictions "
            f"and {len(references)} lists; check that the data set is not empty"
        )
    tokens = iter(tokenize([*predictions, *(text for row in references for text in row)]))
    clean_predictions = [next(tokens) for _ in predictions]
    clean_references = [[next(tokens) for _ in row] for row in references]
    for number, row in enumerate(clean_references):
        if not any(row):
            raise DataError(
                f"row {number} has no reference caption with a word in it, found {references[number]!r}; "
                "expected at least one; leave the row out or give it a caption"
            )
    cider, rouge_l = _official(clean_predictions, clean_references)
    return CaptionScores(
        cider,
        rouge_l,
        count_ngrams(clean_predictions, clean_references),
        tuple(clean_predictions),
        tuple(tuple(row) for row in clean_references),
    )


def compare_captions(
    first: CaptionScores, second: CaptionScores, *, generator: np.random.Generator
) -> Mapping[str, Difference]:
    """Return first minus second on the same rows for `cider`, `bleu_4` and `rouge_l`.

    Raises:
        DataError: The two were scored against other references.
    """
    if first.references != second.references:
        raise DataError(
            "the two scores are of other rows or references; expected the same rows in the same order"
        )
    return {
        "cider": paired_difference(first.cider, second.cider, generator=generator),
        "bleu_4": paired_metric_difference(
            lambda rows: first.bleu.corpus(rows)[-1],
            lambda rows: second.bleu.corpus(rows)[-1],
            len(first.cider),
            generator=generator,
        ),
        "rouge_l": paired_difference(first.rouge_l, second.rouge_l, generator=generator),
    }


def _official(
    predictions: list[str], references: list[list[str]]
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    # Found at this point: tokenize() has already explained what to do where the package is missing.
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = dict(enumerate(references))
    given = {number: [prediction] for number, prediction in enumerate(predictions)}
    _, cider = Cider().compute_score(truth, given)
    _, rouge_l = Rouge().compute_score(truth, given)
    # Splitting "" gives one empty word, so the scorer finds an empty prediction in an empty reference and
    # calls it 1.
    said_something = np.array([bool(prediction) for prediction in predictions])
    return np.asarray(cider, dtype=np.float64), np.where(said_something, rouge_l, 0.0)
