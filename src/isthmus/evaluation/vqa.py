"""Right and wrong answers: exact match under a stated rule, VQAv2's soft accuracy, POPE's scores."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from isthmus.core.errors import DataError
from isthmus.evaluation.statistics import Estimate, Metric, bootstrap_metric, proportion

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_VQA_PUNCTUATION = ";:/'[]\"()=+\\_><@`,?"


@final
@dataclass(frozen=True)
class AnswerRule:
    """What two answers may differ in and still be the same; case and spacing never count.

    Args:
        drop_articles: Leave out the words a, an, the, unless nothing else is there: `A` names an option.
        drop_final_punctuation: Leave out `.`, `!`, `?`, `,`, `;`, `:` at the end.
    """

    drop_articles: bool = True
    drop_final_punctuation: bool = True

    def normalise(self, answer: str) -> str:
        """Return the form in which answers are compared."""
        text = answer.lower().strip()
        if self.drop_final_punctuation:
            text = text.rstrip(".!?,;: \t\n")
        words = text.split()
        telling = [word for word in words if not (self.drop_articles and word in _ARTICLES)]
        return " ".join(telling or words)


LENIENT = AnswerRule()


@final
@dataclass(frozen=True)
class Accuracy:
    """The share of right answers, over all rows and for each kind of question."""

    overall: Estimate
    kinds: Mapping[str, Estimate]

    def to_json(self) -> dict[str, dict]:
        """Return the numbers as plain dictionaries."""
        return {
            "overall": self.overall.to_json(),
            "kinds": {kind: one.to_json() for kind, one in self.kinds.items()},
        }


def exact_match(
    predictions: Sequence[str], truths: Sequence[str], rule: AnswerRule = LENIENT
) -> Bool[np.ndarray, " row"]:
    """Return which predictions equal their truth under the rule; an empty prediction is wrong.

    Raises:
        DataError: The lengths differ, there is no row, or a truth is empty under the rule.
    """
    if not truths or len(predictions) != len(truths):
        raise DataError(
            f"{len(predictions)} predictions came with {len(truths)} answers; expected one for each row"
        )
    expected = [rule.normalise(truth) for truth in truths]
    for number, text in enumerate(expected):
        if not text:
            raise DataError(
                f"row {number} has the answer {truths[number]!r}, of which nothing is left to compare"
            )
    given = [rule.normalise(prediction) for prediction in predictions]
    return np.array([one == two for one, two in zip(given, expected, strict=True)])


def accuracy(
    right: Sequence[bool] | Bool[np.ndarray, " row"],
    kinds: Sequence[str],
    *,
    generator: np.random.Generator,
    pictures: Sequence[Hashable] | None = None,
) -> Accuracy:
    """Return the accuracy over all rows and by kind of question, kinds in alphabetical order.

    Args:
        right: Which rows are right.
        kinds: The kind of each row's question.
        generator: Source of the bootstrap's draws, used where rows share pictures.
        pictures: The picture of each row; give it where several questions are about one picture.

    Raises:
        DataError: There is no row or the lengths differ.
    """
    rows = np.asarray(right)
    if len(kinds) != len(rows):
        raise DataError(
            f"{len(kinds)} kinds of question came with {len(rows)} rows; expected one for each row"
        )
    by_kind = {}
    for kind in sorted(set(kinds)):
        chosen = [row for row, one in enumerate(kinds) if one == kind]
        clusters = None if pictures is None else [pictures[row] for row in chosen]
        by_kind[kind] = proportion(rows[chosen], generator=generator, clusters=clusters)
    return Accuracy(proportion(rows, generator=generator, clusters=pictures), by_kind)


def vqa_soft_accuracy(
    predictions: Sequence[str], answers: Sequence[Sequence[str]]
) -> Float[np.ndarray, " row"]:
    """Return VQAv2's accuracy of each row: the mean, each answer left out once, of min(1, matches / 3).

    With ten answers of which 0, 1, 2, 3, 4 or more match this is 0, 0.3, 0.6, 0.9, 1 (Antol et al., 2015,
    section 5, as the official evaluation computes it). Predictions lose punctuation and articles and get
    digits for number words; answers lose punctuation where people disagree. The official table of
    contractions (dont to don't) is left out.

    Raises:
        DataError: The lengths differ, or a row has fewer than two answers.
    """
    if len(predictions) != len(answers):
        raise DataError(
            f"{len(predictions)} predictions came with {len(answers)} lists of answers; expected one each"
        )
    scores = []
    for number, (prediction, given) in enumerate(zip(predictions, answers, strict=True)):
        if len(given) < 2:
            raise DataError(f"row {number} has {len(given)} human answers, expected ten (two at the least)")
        cleaned = _vqa_words(_vqa_punctuation(" ".join(prediction.split())))
        agreed = len(set(given)) == 1
        matches = [(answer if agreed else _vqa_punctuation(answer)) == cleaned for answer in given]
        scores.append(float(np.mean([min(1.0, (sum(matches) - left_out) / 3) for left_out in matches])))
    return np.array(scores)


@final
@dataclass(frozen=True)
class YesNoScores:
    """POPE's scores of yes-or-no answers about objects, `yes` being the positive class (Li et al., 2023)."""

    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    yes_share: Estimate

    def to_json(self) -> dict[str, dict]:
        """Return the numbers as plain dictionaries."""
        return {
            "accuracy": self.accuracy.to_json(),
            "precision": self.precision.to_json(),
            "recall": self.recall.to_json(),
            "f1": self.f1.to_json(),
            "yes_share": self.yes_share.to_json(),
        }


def says_yes(answer: str) -> bool:
    """Return whether POPE reads the answer as yes: its first sentence has none of the words no, not."""
    words = answer.split(".")[0].lower().replace(",", "").split()
    return "no" not in words and "not" not in words


def yes_no_scores(
    said_yes: Sequence[bool],
    truly_yes: Sequence[bool],
    *,
    generator: np.random.Generator,
    pictures: Sequence[Hashable] | None = None,
) -> YesNoScores:
    """Score yes-or-no answers as POPE does; a share of nothing (no yes said, no yes true) counts as 0.

    Raises:
        DataError: There is no row or the lengths differ.
    """
    if len(said_yes) != len(truly_yes) or len(said_yes) == 0:
        raise DataError(
            f"{len(said_yes)} answers came with {len(truly_yes)} truths; expected one for each row"
        )
    said, true = np.asarray(said_yes, dtype=bool), np.asarray(truly_yes, dtype=bool)

    def share(hits: Bool[np.ndarray, " row"], among: Bool[np.ndarray, " row"]) -> float:
        return float((hits & among).sum() / among.sum()) if among.any() else 0.0

    def f1(rows: np.ndarray) -> float:
        # 2 TP / (said + true): precision and recall's harmonic mean without its division by zero.
        positives = said[rows].sum() + true[rows].sum()
        return float(2 * (said & true)[rows].sum() / positives) if positives else 0.0

    def estimate(metric: Metric) -> Estimate:
        return bootstrap_metric(metric, len(said), generator=generator, clusters=pictures)

    return YesNoScores(
        accuracy=proportion(said == true, generator=generator, clusters=pictures),
        precision=estimate(lambda rows: share(true[rows], said[rows])),
        recall=estimate(lambda rows: share(said[rows], true[rows])),
        f1=estimate(f1),
        yes_share=proportion(said, generator=generator, clusters=pictures),
    )


def _vqa_punctuation(text: str) -> str:
    """Drop punctuation as VQAv2 does: to nothing beside a space or if a comma groups digits."""
    grouped = re.search(r"\d,\d", text) is not None
    result = text
    for mark in _VQA_PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or grouped else " ")
    return re.sub(r"\.(?!\d)", "", result)


def _vqa_words(text: str) -> str:
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(word for word in words if word not in _ARTICLES)
