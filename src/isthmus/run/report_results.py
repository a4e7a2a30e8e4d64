"""What a run's page says of its evaluations: the verdict, the controls and the tables of metrics."""

from collections.abc import Iterable, Mapping
from typing import Any

from isthmus.config.recipe import Recipe
from isthmus.reports.content import (
    Control,
    Controls,
    Estimate,
    KindRow,
    MetricRow,
    MetricTable,
    Results,
    Verdict,
    VerdictState,
    standard_control,
)
from isthmus.reports.wording import interval, number, percent
from isthmus.run.evaluations import evaluations_of

Json = Mapping[str, Any]
"""An object from one of the run's JSON files."""

_STATES: dict[str, VerdictState] = {
    "looks at the picture": "sees",
    "guesses": "guesses",
    "not sure": "unsure",
}
_PICTURES = ("real", "blank", "shuffled", "wrong")
_CAPTION_METRICS = {
    "cider": "CIDEr",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
}
_CHOICES = {
    "zero_shot": "Classes by prompts",
    "probe": "Classes by a linear probe",
    "regions": "Marked things",
}
_WAYS = {"text_to_image": "text to image", "image_to_text": "image to text"}


def headline_split(recipe: Recipe, measured: Json) -> str | None:
    """The split that leads, of the recipe's own task: the test set, else the latest; None where there is none."""
    evaluations = measured.get("evaluation", {})
    if not evaluations:
        return None
    latest = [split_of(recipe, measured["examples_source"])] if "examples_source" in measured else []
    return next(name for name in ("test", *latest, *evaluations) if name in evaluations)


def split_of(recipe: Recipe, source: str) -> str:
    """The name under which the evaluation of a source stands in the results."""
    settings = recipe.evaluation
    if settings is None or source not in (settings.val, settings.test):
        return source
    return "test" if source == settings.test else "val"


def verdict_of(recipe: Recipe, measured: Json) -> Verdict | None:
    """The verdict of the evaluation the page leads with; only answers to questions have one."""
    split = headline_split(recipe, measured)
    controls = measured["evaluation"][split].get("controls", {}) if split is not None else {}
    if "verdict" not in controls:
        return None
    return Verdict(text=controls["verdict"], state=_STATES[controls["conclusion"]])


def evaluation_notes(measured: Json) -> Iterable[str]:
    """What was judged on fewer rows than there are."""
    for split, judged in evaluations_of(measured):
        if "of" in judged:
            yield (
                f"The last evaluation on {split} was limited to {judged['n']:,} of {judged['of']:,} rows "
                "(`isthmus evaluate` with --limit)."
            )


def why_measure(recipe: Recipe, measured: Json) -> str:
    """What evaluating the test set would add to what was measured."""
    split = headline_split(recipe, measured)
    if split != "test":
        return "Measure on the test set."
    if "of" in measured["evaluation"][split]:
        return "Measure on the whole test set."
    return "Measure again; the numbers come out the same."


def results_of(recipe: Recipe, measured: Json) -> Results:
    """Controls and tables of every evaluation, of other tasks too, the one the page leads with first."""
    headline = headline_split(recipe, measured)
    leading = measured["evaluation"][headline] if headline is not None else None
    controls: Controls | None = None
    tables: list[MetricTable] = []
    for split, judged in sorted(evaluations_of(measured), key=lambda one: (one[1] is not leading, one[0])):
        match judged["task"]:
            case "questions" | "classification" if judged is leading:
                controls = _controls(judged)
            case "questions" | "classification":
                tables.append(_answers_table(split, judged))
            case "captioning":
                tables += _caption_tables(split, judged)
            case "retrieval":
                tables += _retrieval_tables(split, judged)
            case "reconstruction":
                tables += _reconstruction_tables(split, judged)
            case "zero_shot" | "probe" | "regions":
                tables.append(_accuracy_table(split, judged))
    return Results(controls=controls, metrics=tuple(tables))


def _accuracy_table(split: str, judged: Json) -> MetricTable:
    """Right choices, beside the same under each control."""
    columns = {"real": judged["metrics"]} | dict(judged["controls"])
    title = f"{_CHOICES[judged['task']]} on {split}"
    note = f"{_rows(judged)} By chance {100 * judged['chance']:.1f}% would be right."
    return _table(title, columns, {"accuracy": "right"}, percent=True, note=note)


def _reconstruction_tables(split: str, judged: Json) -> Iterable[MetricTable]:
    """The error, and for codes the share that is named right, beside simpler predictions."""
    words = {
        "one_colour": "one colour",
        "commonest": "the commonest code",
        "shuffled": "another picture's patches seen",
    }
    columns = {"real": judged["metrics"]} | {words[name]: one for name, one in judged["controls"].items()}
    names = {"error": "error", "right_codes": "right codes", "codes_in_use": "codes in use"}
    note = (
        f"{_rows(judged)} Error: mean squared, in the units that were learnt; lower is better. Codes in use: how many "
        "equally frequent codes would be as varied."
    )
    yield _table(f"Pictures rebuilt on {split}", columns, names, note=note)


def _controls(judged: Json) -> Controls:
    """Right answers with each kind of picture and of the best answerer without one, also by kind of question."""
    answers = judged["controls"]["answers"]
    shown = [name for name in _PICTURES if name in answers]
    controls: list[Control] = [standard_control(name, _estimate(answers[name])) for name in shown]
    blind = judged["controls"].get("best_picture_blind")
    if blind is not None:
        controls.append(standard_control("blind", Estimate(value=blind, n=judged["n"])))
    missing = (None,) * (len(controls) - len(shown))
    kinds = tuple(
        KindRow(kind=kind, estimates=(*(_optional(row, name) for name in shown), *missing))
        for kind, row in judged.get("kinds", {}).items()
    )
    return Controls(controls=tuple(controls), kinds=kinds)


def _answers_table(split: str, judged: Json) -> MetricTable:
    answers = judged["controls"]["answers"]
    shown = tuple(name for name in _PICTURES if name in answers)
    row = MetricRow(name="answers right", estimates=tuple(_estimate(answers[name]) for name in shown))
    return MetricTable(
        title=f"Answers on {split}", columns=shown, rows=(row,), measure="percent", note=_rows(judged)
    )


def _caption_tables(split: str, judged: Json) -> Iterable[MetricTable]:
    """Scores with each kind of photo; and beside people's, where a photo has several captions."""
    columns = {"real": judged["metrics"]} | {
        name: judged["controls"][name] for name in _PICTURES if name in judged["controls"]
    }
    lead = judged["controls"].get("real_minus_best", {}).get("cider")
    said = ""
    if lead is not None:
        said = (
            f" CIDEr with the right photo is {number(lead['value'])} above the best control "
            f"({judged['controls']['best_control']}); 95% interval of the difference on the same rows "
            f"{interval(lead['low'], lead['high'], 'number')}."
        )
    yield _table(f"Captions on {split}", columns, _CAPTION_METRICS, note=_rows(judged) + said)
    people = judged.get("against_all_but_first_reference")
    if people is not None:
        yield _table(
            f"Captions on {split} beside people's",
            {"model": people["model"], "people": people["human_first_caption"]},
            _CAPTION_METRICS,
            note="Both against all references but the first; people: the first reference as if it were an answer.",
        )


def _retrieval_tables(split: str, judged: Json) -> Iterable[MetricTable]:
    """Recall and median rank, both ways, beside the same with exchanged photos."""
    ways = _WAYS | {f"{way}_reranked": f"{words}, matched" for way, words in _WAYS.items()}
    columns = {words: judged["metrics"][way] for way, words in ways.items() if way in judged["metrics"]}
    for control in _PICTURES:
        for way, words in _WAYS.items():
            if way in judged["controls"].get(control, {}):
                columns[f"{words}, {control}"] = judged["controls"][control][way]
    recalls = {
        name: f"R@{name.removeprefix('recall_at_')}"
        for name in sorted(judged["metrics"]["text_to_image"], key=lambda name: (len(name), name))
        if name.startswith("recall_at_")
    }
    note = f"{_rows(judged)} Shuffled: every photo's vector stands for another photo."
    if equal := judged.get("equal_captions", 0):
        note += f" {percent(equal, 1)} of the captions are also another picture's; a tie counts as a miss."
    yield _table(f"Retrieval on {split}", columns, recalls, percent=True, note=note)
    yield _table(
        f"Rank of the right match on {split}",
        columns,
        {"median_rank": "median rank"},
        note="1 is the first place.",
    )


def _table(
    title: str, columns: Mapping[str, Json], metrics: Mapping[str, str], *, percent: bool = False, note: str
) -> MetricTable:
    """A metric a row and a condition a column; metrics that were not measured at all are left out."""
    rows = tuple(
        MetricRow(name=words, estimates=tuple(_optional(column, name) for column in columns.values()))
        for name, words in metrics.items()
        if any(name in column for column in columns.values())
    )
    measure = "percent" if percent else "number"
    return MetricTable(title=title, columns=tuple(columns), rows=rows, measure=measure, note=note)


def _rows(judged: Json) -> str:
    whole = f" of {judged['of']:,}" if "of" in judged else ""
    return f"{judged['n']:,}{whole} rows; small figures are 95% intervals."


def _optional(measured: Json, name: str) -> Estimate | None:
    return _estimate(measured[name]) if name in measured else None


def _estimate(measured: Json | float) -> Estimate:
    """What `evaluation` measured: with `accuracy` and `interval`, with `value`, `low` and `high`, or a bare number."""
    if not isinstance(measured, Mapping):
        return Estimate(value=measured)
    if "accuracy" in measured:
        low, high = measured["interval"]
        return Estimate(value=measured["accuracy"], interval=(low, high), n=measured["n"])
    return Estimate(value=measured["value"], interval=(measured["low"], measured["high"]), n=measured["n"])
