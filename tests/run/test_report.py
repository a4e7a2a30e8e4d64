"""The page of a run, from directories made by hand: nothing is trained here."""

import html
import json
import re
from pathlib import Path

import pytest
from written import ANSWERS, LANGUAGE, SCENES, answered, log, number, recipe_for, run_of, stage

from isthmus.config.load import parse_recipe, recipe_hash
from isthmus.core.errors import CheckpointError
from isthmus.run.directory import RunDirectory
from isthmus.run.report import write_run_report


def text_of(page: str) -> str:
    """The page's words, without style, drawings' numbers and tags."""
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def pictures_in(page: str) -> int:
    return page.count("<img ")


def test_questions_give_verdict_controls_curves_examples_and_what_to_do_next(tmp_path: Path) -> None:
    directory = run_of(recipe_for("questions"), tmp_path / "my run")
    train = [{"kind": "train", "step": step, "loss": 2.0 - step / 8, "lr": 0.001} for step in range(1, 5)]
    held = {"kind": "validation", "step": 4, "val.next_token": 1.75, "val.shuffled_gap.next_token": 0.5}
    log(directory, "align", *train, held, end='{"kind": "tra')
    log(directory, "together", {"kind": "train", "step": 1, "loss": None})
    skips = {"rows": 32, "skipped": 3, "named": ["a.jpg is damaged", "b.jpg is missing"]}
    (directory.stage("align") / "data.json").write_text(
        json.dumps(skips | {"truncated_fraction": 0.125, "supervised_fraction": 0.25, "num_tokens": 9})
    )
    directory.add_results(
        {
            "run": str(directory.path),
            "stages": [stage("align"), stage("together", 5000, stopped_early=True)],
            "evaluation": {"test": answered()},
            "examples": ANSWERS,
            "peak_memory_bytes": 1_430_000_000,
            "command": "isthmus demo",
        }
    )

    assert write_run_report(directory) == directory.report
    page = directory.report.read_text(encoding="utf-8")
    words = text_of(page)

    assert "It looks at the picture" in words and "Answers right: 88% with the picture" in words
    for said in ("88% 81–94%", "best answerer without a picture", "41%", "colour", "50% 44–56%", "1.43 GB"):
        assert said in words, said
    # The lead is over the best of all others, the picture-blind answerer included: 0.875 - 0.40625.
    assert "+47" in words
    assert pictures_in(page) == 12 and "10 of these 12 are right" in words
    for said in ("Stage align", "Loss in training and on held-out rows", "held out", "another row's picture"):
        assert said in words, said
    assert "1 value is not finite and left out" in words
    assert "272" in words and "1 min 01 s" in words and "2 min 02 s" in words
    assert re.search(r"connector linear 272 272 align together", words)
    assert re.search(r"vision vit [\d,]+ – frozen", words)
    run = str(directory.path)
    for command in (
        f"isthmus ask '{run}' photo.jpg \"question\"",
        f"isthmus evaluate '{run}' --split test",
        f"isthmus show '{run}' --table",
        f"isthmus train '{run}/recipe.yaml' stages.0.optimizer.lr=0.0005 --out '{run}-2'",
    ):
        assert command in words, command
    for said in (
        "seed 7",
        "torch 2.",
        f"sha256 {recipe_hash(recipe_for('questions'))}",
        "name: small",
        "isthmus demo",
        "skipped because they cannot be used: 3 (a.jpg is damaged; b.jpg is missing; and 1 more)",
        "12.5% of the rows were cut off",
        "25.0% of the tokens carried loss",
        "Stage together was ended by its cap",
        "Damaged lines of align/metrics.jsonl that are left out: 1",
    ):
        assert said in words, said


def test_right_after_training_the_page_has_no_evaluation(tmp_path: Path) -> None:
    directory = run_of(recipe_for("questions"), tmp_path)
    log(directory, "align", {"kind": "train", "step": 1, "loss": 2.0})
    directory.add_results({"run": str(tmp_path), "stages": [stage("align")]})
    write_run_report(directory)
    words = text_of(directory.report.read_text(encoding="utf-8"))
    assert "Stage align" in words and "Loss in training" in words and "connector" in words
    assert "looks at the picture" not in words and "left out" not in words


def test_a_run_that_only_began_has_a_page(tmp_path: Path) -> None:
    directory = run_of(recipe_for("captioning"), tmp_path)
    words = text_of(write_run_report(directory).read_text(encoding="utf-8"))
    assert "small" in words and "isthmus ask" in words and "How it learnt" not in words


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run directory"):
        write_run_report(RunDirectory(tmp_path))


def test_captions_show_scores_by_picture_and_best_middling_worst(tmp_path: Path) -> None:
    directory = run_of(recipe_for("captioning"), tmp_path)
    names = ("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l")
    scores = {name: number(0.5) for name in names}
    judged = {
        "task": "captioning",
        "metrics": scores | {"cider": number(0.4375)},
        "controls": dict.fromkeys(("blank", "shuffled"), scores)
        | {"best_control": "shuffled", "real_minus_best": {"cider": number(0.375) | {"p": 0.0}}},
        "n": 30,
        "against_all_but_first_reference": {
            "model": scores,
            "human_first_caption": {"cider": number(0.7890625)},
        },
    }
    rows = [
        {"row": row, "caption": f"caption {row}", "other_caption": "other", "references": ["one", "two"], "cider": row / 32}
        for row in range(30)
    ]  # fmt: skip
    directory.add_results({"evaluation": {"test": judged}, "examples": rows})
    page = write_run_report(directory).read_text(encoding="utf-8")
    words = text_of(page)
    assert "metric real blank shuffled CIDEr 0.438 0.406–0.469 0.500 0.469–0.531" in words
    assert "BLEU-4" in words and "ROUGE-L" in words
    assert "CIDEr with the right photo is 0.375 above the best control (shuffled)" in words
    assert "metric model people CIDEr 0.500 0.469–0.531 0.789 0.758–0.820 BLEU-1 0.500 0.469–0.531 –" in words
    assert re.findall(r"caption (\d+)", words) == [
        str(row) for row in (29, 28, 27, 26, 16, 15, 14, 13, 3, 2, 1, 0)
    ]
    assert pictures_in(page) == 12 and "CIDEr 0.91" in words


def test_retrieval_shows_both_ways_and_hits_from_first_to_last_place(tmp_path: Path) -> None:
    directory = run_of(recipe_for("retrieval"), tmp_path)
    one_way = {
        "recall_at_1": number(0.25),
        "recall_at_5": number(0.5),
        "recall_at_10": number(0.75),
        "median_rank": number(5),
    }
    both = {"text_to_image": one_way, "image_to_text": one_way | {"recall_at_1": number(0.3125)}}
    rows = [
        {"row": row, "query": f"text {row}", "hits": [0, 1, 2, 3, 4], "rank": row + 1} for row in range(30)
    ]
    validation = {"kind": "validation", "step": 2, "val.text_to_image_r1": 0.25, "val.image_to_text_r1": 0.5}
    log(directory, "contrast", {"kind": "train", "step": 1, "loss": 2.0}, validation)
    judged = {"task": "retrieval", "metrics": both, "controls": {"shuffled": both}, "n": 30}
    directory.add_results({"evaluation": {"test": judged}, "examples": rows})
    page = write_run_report(directory).read_text(encoding="utf-8")
    words = text_of(page)
    assert (
        "text to image image to text text to image, shuffled image to text, shuffled R@1 25.0% 21.9–28.1% 31.2%"
        in words
    )
    assert words.index("R@1 25.0%") < words.index("R@5 50.0%") < words.index("R@10 75.0%")
    assert "median rank 5.000" in words
    assert "place 1 of 30" in words and "place 30 of 30" in words
    # Twelve texts of five hits; the right photo of all but rows 0 and 2 is not among them and stands behind.
    assert pictures_in(page) == 12 * 5 + 10
    assert "Held-out queries whose match comes first (R@1)" in words
    assert "isthmus ask" not in words and "isthmus evaluate" in words


def test_data_that_is_not_here_costs_only_the_pictures(tmp_path: Path) -> None:
    text = SCENES.replace(
        "test: {kind: scenes, split: test, num_samples: 30, image_size: 32}",
        f'test: {{kind: shards, files: "{tmp_path}/nowhere-*.tar"}}',
    )
    recipe = parse_recipe(
        f"{text}{LANGUAGE}evaluation: {{task: questions, val: val, test: test}}\n", "a recipe"
    )
    directory = run_of(recipe, tmp_path / "run")
    directory.add_results({"evaluation": {"test": answered()}, "examples": ANSWERS})
    page = write_run_report(directory).read_text(encoding="utf-8")
    assert pictures_in(page) == 0
    assert "question 1?" in text_of(page) and "Pictures of examples are left out" in text_of(page)


def test_weights_that_are_not_here_cost_only_the_parameter_table(tmp_path: Path) -> None:
    text = re.sub(r"vision: \{.*\}", f"vision: {{kind: pretrained, name: {tmp_path}/nowhere}}", LANGUAGE)
    directory = run_of(parse_recipe(SCENES + text, "a recipe"), tmp_path / "run")
    words = text_of(write_run_report(directory).read_text(encoding="utf-8"))
    assert "The parameter table is left out" in words
