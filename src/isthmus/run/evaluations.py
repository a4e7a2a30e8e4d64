"""Where evaluations stand in `results.json`: the recipe's own task under its split, other tasks beside it.

`evaluation` holds, of each split or source, what the recipe's own task gave, and `other_tasks` what others gave, by
split and task; so judging captions after retrieval leaves both.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]
"""An object of a run's results."""

OWN, OTHERS = "evaluation", "other_tasks"


def with_judged(measured: Json, split: str, judged: Json, *, own_task: str) -> dict[str, Any]:
    """What changes in the results when a split was judged.

    Args:
        measured: The results so far; what an earlier version left in the place of the recipe's own task is moved.
        split: `val`, `test`, or the name of another source.
        judged: What was measured, with its `task`.
        own_task: The task that the recipe names.
    """
    own = dict(measured.get(OWN, {}))
    others = {name: dict(by_task) for name, by_task in measured.get(OTHERS, {}).items()}
    if split in own and own[split]["task"] != own_task:
        before = own.pop(split)
        others.setdefault(split, {})[before["task"]] = before
    if judged["task"] == own_task:
        own[split] = judged
    else:
        others.setdefault(split, {})[judged["task"]] = judged
    return {OWN: own} | ({OTHERS: others} if others else {})


def evaluations_of(measured: Json) -> Iterator[tuple[str, Json]]:
    """Every split with what was judged of it, the recipe's own task first."""
    yield from measured.get(OWN, {}).items()
    for split, by_task in measured.get(OTHERS, {}).items():
        yield from ((split, judged) for judged in by_task.values())


def judged_of(measured: Json, split: str, task: str) -> Json | None:
    """What one task gave on a split, or None where it was not judged."""
    found = (judged for name, judged in evaluations_of(measured) if (name, judged["task"]) == (split, task))
    return next(found, None)


def damaged_split(measured: Json) -> str | None:
    """The first split that does not say which task was judged on it, as after a hand in the file; None: all do."""
    judged = list(measured.get(OWN, {}).items())
    for split, by_task in measured.get(OTHERS, {}).items():
        judged += (
            [(split, one) for one in by_task.values()] if isinstance(by_task, dict) else [(split, by_task)]
        )
    named = ((split, isinstance(one, dict) and isinstance(one.get("task"), str)) for split, one in judged)
    return next((split for split, is_named in named if not is_named), None)
