"""Several tasks judged on one split stand beside each other in the results and on the page."""

from pathlib import Path
from typing import Any

from written import ANSWERS, answered, number, recipe_for, run_of

from isthmus.run.evaluations import evaluations_of, judged_of, with_judged
from isthmus.run.report import write_run_report

SCORES = {name: number(0.5) for name in ("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l")}
CAPTIONS: dict[str, Any] = {
    "task": "captioning",
    "metrics": SCORES,
    "controls": {"blank": SCORES, "best_control": "blank", "real_minus_best": {"cider": number(0.375)}},
    "n": 30,
}


def judged(task: str, value: int) -> dict[str, Any]:
    return {"task": task, "metrics": {"value": value}}


def test_each_task_of_each_split_is_kept_and_the_recipes_own_is_where_it_was() -> None:
    """Against a plain table of what was judged last, in an order that overwrote results before."""
    measured: dict[str, Any] = {"stages": []}
    last: dict[tuple[str, str], dict[str, Any]] = {}
    order = [("test", "retrieval"), ("test", "captioning"), ("val", "captioning"), ("test", "retrieval")]
    for value, (split, task) in enumerate([*order, ("val", "retrieval"), ("test", "captioning")]):
        last[split, task] = judged(task, value)
        measured |= with_judged(measured, split, last[split, task], own_task="retrieval")
    assert {(split, one["task"]): one for split, one in evaluations_of(measured)} == last
    assert measured["evaluation"] == {split: last[split, "retrieval"] for split in ("test", "val")}
    assert measured["other_tasks"] == {
        split: {"captioning": last[split, "captioning"]} for split in ("test", "val")
    }
    assert judged_of(measured, "test", "captioning") == judged("captioning", 5)
    assert judged_of(measured, "test", "questions") is None


def test_results_of_one_task_have_no_other_key() -> None:
    assert with_judged({}, "test", judged("questions", 1), own_task="questions") == {
        "evaluation": {"test": judged("questions", 1)}
    }


def test_what_an_earlier_version_overwrote_is_moved_aside() -> None:
    old = {"evaluation": {"test": judged("captioning", 1)}}
    now = with_judged(old, "test", judged("retrieval", 2), own_task="retrieval")
    assert now["evaluation"] == {"test": judged("retrieval", 2)}
    assert now["other_tasks"] == {"test": {"captioning": judged("captioning", 1)}}
    assert old == {"evaluation": {"test": judged("captioning", 1)}}


def test_the_page_leads_with_the_recipes_own_task_and_shows_the_other(tmp_path: Path) -> None:
    directory = run_of(recipe_for("questions"), tmp_path)
    for one in (answered(), CAPTIONS):
        directory.add_results(with_judged(directory.read_results(), "test", one, own_task="questions"))
    directory.add_results({"examples": ANSWERS, "examples_source": "test", "examples_task": "questions"})
    page = write_run_report(directory).read_text(encoding="utf-8")
    assert "It looks at the picture" in page
    assert "Captions on test" in page
    assert "truth 1" in page


def test_examples_are_read_by_the_task_they_are_of(tmp_path: Path) -> None:
    directory = run_of(recipe_for("questions"), tmp_path)
    rows = [
        {"row": row, "caption": f"said {row}", "other_caption": "x", "references": ["y"], "cider": row / 30}
        for row in range(30)
    ]
    for one in (answered(), CAPTIONS):
        directory.add_results(with_judged(directory.read_results(), "test", one, own_task="questions"))
    directory.add_results({"examples": rows, "examples_source": "test", "examples_task": "captioning"})
    page = write_run_report(directory).read_text(encoding="utf-8")
    assert "said 29" in page
    assert "by CIDEr" in page
