"""Which rows and which evaluation the page of a run shows."""

from pathlib import Path

from written import ANSWERS, answered, recipe_for

from isthmus.run.report_examples import best_middle_worst, examples_of, spread_by_rank
from isthmus.run.report_results import headline_split, results_of, verdict_of


def test_rows_that_are_gone_and_sources_outside_the_recipe_are_named() -> None:
    recipe = recipe_for("questions")
    shown, notes = examples_of(recipe, {"examples": [ANSWERS[0] | {"row": 99}]}, Path())
    assert shown.answers[0].pictures == () and "row 99 is not there" in notes[0]
    shown, notes = examples_of(recipe, {"examples": ANSWERS, "examples_source": "elsewhere"}, Path())
    assert len(shown.answers) == 12 and "elsewhere is no source of the recipe" in notes[0]
    captions = {"row": 0, "caption": "a", "other_caption": "b", "references": ["c"], "cider": 0.5}
    shown, _ = examples_of(
        recipe_for("captioning"), {"examples": [captions], "examples_source": "elsewhere"}, Path()
    )
    assert shown.captions == ()


def test_mistakes_are_among_the_chosen_answers_and_pictures_are_the_rows_own() -> None:
    recipe = recipe_for("questions")
    rows = [row | {"right": row["row"] not in (3, 4, 5)} for row in ANSWERS]
    shown, notes = examples_of(recipe, {"examples": rows, "examples_source": "val"}, Path())
    assert len(shown.answers) == 12 and not notes
    assert [answer.question for answer in shown.answers if not answer.right] == [
        f"question {row}?" for row in (3, 4, 5)
    ]
    assert shown.answers[0].pictures[0].name.startswith("scene val-")


def test_the_page_leads_with_the_test_set_and_tables_the_others() -> None:
    recipe = recipe_for("questions")
    both = {
        "evaluation": {"val": answered(0.5), "test": answered(0.875, "not sure")},
        "examples_source": "val",
    }
    assert headline_split(recipe, both) == "test"
    verdict, results = verdict_of(recipe, both), results_of(recipe, both)
    assert verdict is not None and verdict.state == "unsure"
    assert results.controls is not None and results.controls.controls[0].estimate.value == 0.875
    assert [table.title for table in results.metrics] == ["Answers on val"]
    assert results.metrics[0].rows[0].estimates[0].value == 0.5
    assert (
        headline_split(recipe, {"evaluation": {"elsewhere.tar": {}, "val": {}}, "examples_source": "val"})
        == "val"
    )
    assert headline_split(recipe, {"evaluation": {"elsewhere.tar": {}}}) == "elsewhere.tar"
    assert headline_split(recipe, {}) is None


def test_choices_cover_both_ends() -> None:
    assert best_middle_worst([0.0, 5.0, 1.0, 4.0, 3.0], 3) == (1, 4, 0)
    assert best_middle_worst([1.0, 2.0], 12) == (1, 0)
    assert spread_by_rank([9, 1, 5, 3, 7], 3) == (1, 2, 0)
    assert spread_by_rank([2, 1], 12) == (1, 0)
