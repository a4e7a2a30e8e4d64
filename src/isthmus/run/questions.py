"""Judging answers: how many are right with the real picture and with each control, and what that means."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from isthmus.data.samples import Source
from isthmus.evaluation.verdict import answers_json, judge, judge_kinds
from isthmus.evaluation.vqa import exact_match
from isthmus.run.load import LoadedRun
from isthmus.run.pictures import with_controls

_ROWS_AT_ONCE = 100


def judge_answers(loaded: LoadedRun, source: Source, *, seed: int, partial: bool = False) -> dict[str, Any]:
    """Exact-match accuracy by kind of question, the four controls and the verdict.

    Args:
        loaded: The run.
        source: What it is asked.
        seed: Decides the shuffled pictures and the intervals.
        partial: Whether these are only some rows of a set. Then the best answerer without pictures is left out: it
            knows the answers that it is judged on, and of few rows most questions occur only once.
    """
    sources, ids = with_controls(loaded, source, seed=seed)
    written = {name: write_all(loaded, one, rows="questions") for name, one in sources.items()}
    samples = [source.sample(index) for index in range(len(source))]
    truths = [sample.answers[0] for sample in samples]
    kinds = [sample.kind or "all" for sample in samples]
    right = {name: exact_match(answers, truths) for name, answers in written.items()}
    generator = np.random.default_rng(seed)
    verdict = judge(right, generator=generator, pictures=ids)
    shares = answers_json(verdict.answers)
    by_kind = judge_kinds(right, kinds, generator=generator, pictures=ids)
    blind = None if partial else best_blind([sample.question or "" for sample in samples], truths)
    return {
        "task": "questions",
        "metrics": {"accuracy": shares["real"]},
        "controls": verdict.to_json() | ({} if blind is None else {"best_picture_blind": blind}),
        "kinds": {kind: answers_json(one.answers) for kind, one in by_kind.items()},
        "n": len(samples),
        "examples": [
            {
                "row": row,
                "question": sample.question,
                "answer": written["real"][row],
                "blank_answer": written["blank"][row],
                "truth": truths[row],
                "kind": kinds[row],
                "right": bool(right["real"][row]),
            }
            for row, sample in enumerate(samples)
        ],
    }


def best_blind(questions: list[str], truths: list[str]) -> float:
    """The share right of the best answerer without pictures: for each question's text its commonest answer."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question, truth in zip(questions, truths, strict=True):
        answers[question][truth] += 1
    return sum(max(counted.values()) for counted in answers.values()) / len(truths)


def write_all(loaded: LoadedRun, source: Source, *, rows: Any) -> list[str]:
    """What the model writes for every sample, in order."""
    answers: list[str] = []
    for start in range(0, len(source), _ROWS_AT_ONCE):
        batch = [source.sample(index) for index in range(start, min(start + _ROWS_AT_ONCE, len(source)))]
        answers += [answer.text for answer in loaded.write(batch, rows=rows)]
    return answers
