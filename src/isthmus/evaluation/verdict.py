"""Does the model look at the picture? A stated rule over right answers with real and replaced pictures.

The rule, over real minus the best control on the same rows with its 95% paired interval:

- `looks at the picture`: the interval lies above 0 and the difference is at least `FLOOR`;
- `guesses`: the whole interval lies below `FLOOR`;
- `not sure`: anything else, and always with fewer than `FEWEST` pictures, where the interval cannot be
  trusted.

The best control is the one with the most right answers; choosing it after the fact can only make the verdict
stricter.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Bool

from isthmus.core.errors import DataError, UsageError
from isthmus.evaluation.statistics import Difference, Estimate, paired_difference, proportion

Conclusion = Literal["looks at the picture", "guesses", "not sure"]
Right = Mapping[str, Sequence[bool] | Bool[np.ndarray, " row"]]

FLOOR = 0.05
FEWEST = 30

_PICTURE = {
    "real": "with the picture",
    "blank": "with a blank one",
    "shuffled": "with another row's picture",
    "wrong": "with the most similar other one",
}
_ENDING: dict[Conclusion, str] = {
    "looks at the picture": "it looks at the picture",
    "guesses": "it guesses",
    "not sure": "not sure that it looks at the picture",
}


@final
@dataclass(frozen=True)
class Verdict:
    """What the controls say.

    Args:
        conclusion: Which case of the rule holds.
        answers: Share of right answers with each kind of picture, `real` first.
        best_control: The control with the most right answers.
        margin: Real minus the best control on the same rows.
    """

    conclusion: Conclusion
    answers: Mapping[str, Estimate]
    best_control: str
    margin: Difference

    @property
    def line(self) -> str:
        """The verdict in one line for people."""
        shares = ", ".join(f"{_percent(one.value)} {_PICTURE[name]}" for name, one in self.answers.items())
        return f"answers right: {shares}: {_ENDING[self.conclusion]}"

    @property
    def detail(self) -> tuple[str, ...]:
        """One line for each kind of picture and one for the margin, each with its interval."""
        lines = [
            f"{_PICTURE[name]}: {_percent(one.value)} (95% interval {_percent(one.low)} to "
            f"{_percent(one.high)}, "
            f"{one.n} rows)"
            for name, one in self.answers.items()
        ]
        gap = self.margin
        lines.append(
            f"picture minus best control ({self.best_control}): {100 * gap.value:+.0f} points "
            f"(95% interval {100 * gap.low:+.0f} to {100 * gap.high:+.0f})"
        )
        return tuple(lines)

    def to_json(self) -> dict[str, str | dict]:
        """Return `answers`, `verdict` (the line), `conclusion`, `best_control` and `margin`."""
        return {
            "answers": answers_json(self.answers),
            "verdict": self.line,
            "conclusion": self.conclusion,
            "best_control": self.best_control,
            "margin": self.margin.to_json(),
        }


def judge(
    right: Right, *, generator: np.random.Generator, pictures: Sequence[Hashable] | None = None
) -> Verdict:
    """Decide whether right answers come from the picture.

    Args:
        right: Which rows are right with `real` pictures and with one or more of `blank`, `shuffled`, `wrong`.
        generator: Source of the bootstrap's draws.
        pictures: The real picture of each row; give it where rows share pictures.

    Raises:
        UsageError: `real` or every control is missing, or a name is none of the four.
        DataError: There is no row or the lengths differ.
    """
    unknown = sorted(set(right) - set(_PICTURE))
    controls = [name for name in _PICTURE if name in right and name != "real"]
    if "real" not in right or not controls or unknown:
        raise UsageError(
            f"a verdict needs real and at least one of blank, shuffled, wrong; found {sorted(right)}"
        )
    rows = {name: np.asarray(right[name]) for name in ("real", *controls)}
    lengths = {name: len(one) for name, one in rows.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(
            f"the controls answer other rows than the real pictures, found {lengths}; use the same rows"
        )
    answers = {name: proportion(one, generator=generator, clusters=pictures) for name, one in rows.items()}
    best = max(controls, key=lambda name: answers[name].value)
    margin = paired_difference(rows["real"], rows[best], generator=generator, clusters=pictures)
    num_pictures = lengths["real"] if pictures is None else len(set(pictures))
    return Verdict(_conclude(margin, num_pictures), answers, best, margin)


def judge_kinds(
    right: Right,
    kinds: Sequence[str],
    *,
    generator: np.random.Generator,
    pictures: Sequence[Hashable] | None = None,
) -> dict[str, Verdict]:
    """Return the verdict for each kind of question, kinds in alphabetical order.

    Raises:
        UsageError: As `judge`.
        DataError: As `judge`, or `kinds` has another length than the rows.
    """
    for name, one in right.items():
        if len(one) != len(kinds):
            raise DataError(
                f"{len(kinds)} kinds of question came with {len(one)} {name} rows; expected one for each"
            )
    verdicts = {}
    for kind in sorted(set(kinds)):
        chosen = [row for row, one in enumerate(kinds) if one == kind]
        part = {name: np.asarray(one)[chosen] for name, one in right.items()}
        clusters = None if pictures is None else [pictures[row] for row in chosen]
        verdicts[kind] = judge(part, generator=generator, pictures=clusters)
    return verdicts


def answers_json(answers: Mapping[str, Estimate]) -> dict[str, dict]:
    """Return `{name: {accuracy, interval: [low, high], n}}`."""
    return {
        name: {"accuracy": one.value, "interval": [one.low, one.high], "n": one.n}
        for name, one in answers.items()
    }


def _conclude(margin: Difference, num_pictures: int) -> Conclusion:
    if num_pictures < FEWEST:
        return "not sure"
    if margin.low > 0 and margin.value >= FLOOR:
        return "looks at the picture"
    return "guesses" if margin.high < FLOOR else "not sure"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
