"""Corpus BLEU from counts kept for each row, so that rows can be resampled (Papineni et al., 2002).

The arithmetic is that of the COCO caption scorers: reference length closest to the prediction's (the shorter
of two equally close ones), small constants instead of zero divisions, tested equal to them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int

ORDER = 4


@final
@dataclass(frozen=True)
class BleuCounts:
    """What each row adds to corpus BLEU.

    Args:
        matched: n-grams of the prediction found in the references, clipped, for n = 1 to 4.
        total: n-grams of the prediction, for n = 1 to 4.
        length: Tokens of the prediction.
        reference_length: Tokens of the reference whose length is closest.
    """

    matched: Int[np.ndarray, "row order"]
    total: Int[np.ndarray, "row order"]
    length: Int[np.ndarray, " row"]
    reference_length: Int[np.ndarray, " row"]

    def corpus(self, rows: Int[np.ndarray, " row"] | None = None) -> tuple[float, ...]:
        """Return BLEU-1 to BLEU-4 of the given rows (a row may come several times), or of all."""
        chosen = np.arange(len(self.length)) if rows is None else rows
        matched, total = self.matched[chosen].sum(axis=0), self.total[chosen].sum(axis=0)
        # 1e-15 and 1e-9 are the official scorer's guards against a zero count and an empty prediction.
        ratio = (int(self.length[chosen].sum()) + 1e-15) / (int(self.reference_length[chosen].sum()) + 1e-9)
        brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        precisions = (matched + 1e-15) / (total + 1e-9)
        return tuple(float(precisions[: n + 1].prod() ** (1 / (n + 1))) * brevity for n in range(ORDER))


def count_ngrams(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> BleuCounts:
    """Count what BLEU needs; all texts are tokenised, with spaces between tokens."""
    matched, total, lengths, closest = [], [], [], []
    for prediction, row_references in zip(predictions, references, strict=True):
        words = prediction.split()
        most: Counter[tuple[str, ...]] = Counter()
        for reference in row_references:
            most |= _ngrams(reference.split())
        common = _ngrams(words) & most
        matched.append(
            [sum(count for gram, count in common.items() if len(gram) == n + 1) for n in range(ORDER)]
        )
        total.append([max(0, len(words) - n) for n in range(ORDER)])
        lengths.append(len(words))
        reference_lengths = [len(reference.split()) for reference in row_references]
        closest.append(min(reference_lengths, key=lambda length: (abs(length - len(words)), length)))
    return BleuCounts(np.array(matched), np.array(total), np.array(lengths), np.array(closest))


def _ngrams(words: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for n in range(1, ORDER + 1) for at in range(len(words) - n + 1))
