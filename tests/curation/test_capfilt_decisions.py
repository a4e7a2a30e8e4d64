"""Which captions are kept, against the rules written out one caption at a time."""

import random

import pytest

from isthmus.curation.capfilt.decisions import Candidate, by_match, by_rank, candidates


def asked(*texts: str) -> list[Candidate]:
    return [Candidate(origin="web", text=text) for text in texts]


def test_empty_and_repeated_captions_are_not_asked_about() -> None:
    found, settled = candidates(["A dog.", "  ", "a  DOG."], ["a dog.", "A cat.", ""])
    assert [(one.origin, one.text) for one in found] == [("web", "A dog."), ("synthetic", "A cat.")]
    assert [(one.candidate.origin, one.candidate.text, one.dropped, one.score) for one in settled] == [
        ("web", "", "empty", None),
        ("web", "a  DOG.", "repeated", None),
        ("synthetic", "a dog.", "repeated", None),
        ("synthetic", "", "empty", None),
    ]
    assert not any(one.kept for one in settled)


@pytest.mark.parametrize("seed", range(5))
def test_a_match_is_kept_from_the_threshold_on(seed: int) -> None:
    draw = random.Random(seed)
    scores = [draw.choice([0.0, 0.49, 0.5, 0.51, 1.0]) for _ in range(9)]
    decided = by_match(asked(*"abcdefghi"), scores, least=0.5)
    assert [one.kept for one in decided] == [not score < 0.5 for score in scores]
    assert {one.dropped for one in decided if not one.kept} <= {"no match"}
    assert [one.score for one in decided] == scores


@pytest.mark.parametrize("seed", range(5))
def test_the_best_are_kept_and_of_equal_ones_the_first(seed: int) -> None:
    draw = random.Random(seed)
    scores = [draw.choice([0.1, 0.2, 0.3]) for _ in range(8)]
    kept = {at for at, one in enumerate(by_rank(asked(*"abcdefgh"), scores, most=2)) if one.kept}
    for one in kept:
        better = [at for at, score in enumerate(scores) if (score, -at) > (scores[one], -one)]
        assert len(better) < 2
    assert len(kept) == 2
    assert all(one.kept for one in by_rank(asked("a"), [0.0], most=2))
    assert by_rank([], [], most=2) == []
