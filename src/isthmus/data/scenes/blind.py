"""The best answerer that never sees the picture: for each question's text, the most frequent answer."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from isthmus.core.errors import DataError
from isthmus.data.scenes.questions import Question


def blind_accuracy(rows: Iterable[Question], learned_from: Iterable[Question] | None = None) -> float:
    """Return the share of questions that the majority answer for each exact text gets right, in [0, 1].

    Args:
        rows: The questions to answer.
        learned_from: Where the majorities are counted; None counts them on `rows` themselves, which no
        answerer
            without the pictures can beat. A text not found there gets the majority answer of its kind.

    Raises:
        DataError: If there are no rows.
    """
    asked = list(rows)
    if not asked:
        raise DataError("The blind accuracy needs questions, and there are none: pass at least one row.")
    by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in asked if learned_from is None else learned_from:
        by_text[question.text][question.answer] += 1
        by_kind[question.kind][question.answer] += 1
    right = 0
    for question in asked:
        counts = by_text[question.text] or by_kind[question.kind]
        right += bool(counts) and counts.most_common(1)[0][0] == question.answer
    return right / len(asked)
