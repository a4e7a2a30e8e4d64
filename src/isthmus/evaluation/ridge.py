"""The floor that retrieval has to beat: ridge regression from picture features to words, in closed form.

No network is trained. TF-IDF (Spärck Jones, 1972; Salton and Buckley, 1988) turns captions into vectors, ridge
regression (Hoerl and Kennard, 1970) predicts the mean vector of a photo's captions from its features, and the cosine
ranks both ways. What the features know linearly is then in the recall; a trained model has to add to it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from isthmus.core.errors import DataError, UsageError

ALPHA = 3000.0
"""The published floor's one choice of alpha, not tuned on test."""
MIN_CAPTIONS = 3
"""Words in fewer training captions are left out: what one or two photos show cannot be regressed."""

_WORD = re.compile(r"\w\w+")

Idf = Literal["smooth", "plain"]
"""`smooth`: ln((1 + n) / (1 + df)) + 1, which keeps common words; `plain`: ln(n / df), 0 for what is everywhere."""


def words_of(text: str) -> list[str]:
    """The lower-case words of two or more letters or digits."""
    return _WORD.findall(text.lower())


@final
@dataclass(frozen=True)
class TermWeights:
    """A vocabulary with the weight of each word.

    Args:
        places: The column of each word.
        idf: Its inverse document frequency, one a column.
    """

    places: dict[str, int]
    idf: Float[np.ndarray, " term"]

    def vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "text term"]:
        """Count times idf, scaled to length 1; a text without a known word is zero."""
        table = np.zeros((len(texts), len(self.places)))
        for row, text in enumerate(texts):
            for word, count in Counter(words_of(text)).items():
                if word in self.places:
                    table[row, self.places[word]] = count * self.idf[self.places[word]]
        return unit_rows(table)


def learn_weights(texts: Sequence[str], *, min_texts: int = MIN_CAPTIONS, idf: Idf = "smooth") -> TermWeights:
    """Count in how many texts each word stands.

    Args:
        texts: The training captions, one document each.
        min_texts: In how many texts a word must stand.
        idf: How rarity becomes a weight.

    Raises:
        DataError: No word stands in enough texts.
    """
    counts = Counter(word for text in texts for word in set(words_of(text)))
    kept = sorted(word for word, count in counts.items() if count >= min_texts)
    if not kept:
        raise DataError(
            f"no word stands in {min_texts} of the {len(texts)} training captions; give more captions or a lower bound"
        )
    found = np.array([counts[word] for word in kept], dtype=np.float64)
    match idf:
        case "smooth":
            weights = np.log((1 + len(texts)) / (1 + found)) + 1
        case "plain":
            weights = np.log(len(texts) / found)
    return TermWeights({word: place for place, word in enumerate(kept)}, weights)


@final
@dataclass(frozen=True)
class Ridge:
    """A fitted linear map between centred features and centred targets.

    Args:
        feature_mean: What is subtracted from features.
        target_mean: What predictions are measured from.
        weights: The map.
    """

    feature_mean: Float[np.ndarray, " feature"]
    target_mean: Float[np.ndarray, " target"]
    weights: Float[np.ndarray, "feature target"]

    def deviations(self, features: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "row target"]:
        """Predicted targets minus their training mean."""
        return (features - self.feature_mean) @ self.weights

    def predict(self, features: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "row target"]:
        """Predicted targets."""
        return self.deviations(features) + self.target_mean


def fit_ridge(
    features: Float[np.ndarray, "row feature"], targets: Float[np.ndarray, "row target"], *, alpha: float
) -> Ridge:
    """Minimise the squared error plus `alpha` times the squared weights; the intercept is not penalised.

    Centring takes the intercept out; what is left solves (X'X + alpha I) W = X'Y.

    Raises:
        DataError: The rows do not fit, there is none, or a number is not finite.
        UsageError: `alpha` is not above zero.
    """
    if len(features) != len(targets) or len(features) == 0:
        raise DataError(
            f"ridge regression got {len(features)} rows of features and {len(targets)} of targets; "
            "expected as many, at least one"
        )
    if not (np.isfinite(features).all() and np.isfinite(targets).all()):
        raise DataError(
            "ridge regression got a number that is not finite; look at the vision encoder's weights"
        )
    if alpha <= 0:
        raise UsageError(
            f"alpha is {alpha}; expected a number above 0, so that the equations have one solution"
        )
    feature_mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    centred = (features - feature_mean).astype(np.float64)
    # The columns of `centred` sum to zero, so the targets' own mean drops out of X'Y.
    gram = centred.T @ centred + alpha * np.eye(centred.shape[1])
    return Ridge(feature_mean, target_mean, np.linalg.solve(gram, centred.T @ targets))


@final
@dataclass(frozen=True)
class CaptionRidge:
    """Vectors of pictures and of captions that meet in the space of words.

    Both are taken from the training mean: otherwise every picture's vector is mostly the average caption, and short
    plain captions are the nearest of all (measured on validation: image to text R@1 0.05 instead of 0.08).
    """

    words: TermWeights
    ridge: Ridge

    def picture_vectors(
        self, features: Float[np.ndarray, "image feature"]
    ) -> Float[np.ndarray, "image term"]:
        """Unit vectors predicted from pictures."""
        return unit_rows(self.ridge.deviations(features))

    def caption_vectors(self, captions: Sequence[str]) -> Float[np.ndarray, "text term"]:
        """Unit vectors of captions."""
        return unit_rows(self.words.vectors(captions) - self.ridge.target_mean)


def fit_caption_ridge(
    features: Float[np.ndarray, "image feature"],
    captions: Sequence[Sequence[str]],
    *,
    alpha: float = ALPHA,
    min_texts: int = MIN_CAPTIONS,
    idf: Idf = "smooth",
) -> CaptionRidge:
    """Regress the mean TF-IDF vector of each photo's captions on its features.

    Args:
        features: One vector a training photo.
        captions: The captions of each, one or more.
        alpha: Weight of the penalty.
        min_texts: In how many training captions a word must stand.
        idf: How rarity becomes a weight.

    Raises:
        DataError: The lengths differ, or a photo has no caption.
    """
    if len(features) != len(captions) or not all(captions):
        raise DataError(
            f"{len(features)} photos came with {len(captions)} lists of captions; expected one list of one or more each"
        )
    texts = [caption for own in captions for caption in own]
    words = learn_weights(texts, min_texts=min_texts, idf=idf)
    targets = np.stack([words.vectors(own).mean(axis=0) for own in captions])
    return CaptionRidge(words, fit_ridge(features, targets, alpha=alpha))


def unit_rows(table: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Scale each row to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(lengths > 0, lengths, 1.0)
