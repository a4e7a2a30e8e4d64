"""Blocks of code in the documents: commands parse, recipes are valid, Python runs where it is cheap."""

import ast
import csv
import functools
import json
import os
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import torch
import typer
from pydantic import TypeAdapter
from typer.testing import CliRunner

from isthmus.cli.app import app
from isthmus.config import yaml
from isthmus.config.load import load_recipe, parse_recipe, shipped_names
from isthmus.config.recipe import Recipe
from isthmus.data.rows import turns_of
from isthmus.data.scenes import words
from isthmus.data.sources.folder import Folder
from isthmus.data.sources.llava import LlavaConversations
from isthmus.data.sources.scenes import SceneSource
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer
from isthmus.run.load import LoadedRun


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)


def commands() -> list[str]:
    """Every `isthmus ...` line of the documents."""
    lines = [line for block in pages.blocks("sh") for line in block.text.splitlines()]
    return sorted({line.split("  #")[0].strip() for line in lines if line.startswith("isthmus ")})


@functools.cache
def verbs() -> dict[str, Any]:
    """The commands of the command line by name."""
    return vars(typer.main.get_command(app))["commands"]


def parsed(line: str) -> tuple[str, dict[str, object]]:
    """The command a line names and what it is given; wrong options are errors."""
    name, *arguments = shlex.split(line)[1:]
    return name, verbs()[name].make_context(name, arguments).params


def test_there_is_something_to_check() -> None:
    assert len(commands()) > 10
    assert len(pages.blocks("yaml")) > 8
    assert len(pages.blocks("python")) > 4


@pytest.mark.parametrize("line", commands())
def test_commands_parse_and_name_recipes_that_accept_their_changes(line: str) -> None:
    name, given = parsed(line)
    target = str(given.get("recipe") or given.get("target") or "")
    if name in ("train", "show") and target in shipped_names():
        load_recipe(target, [str(change) for change in given.get("overrides") or ()])
    elif name in ("train", "show"):
        assert target.startswith("runs/") or target in ("photos.yaml", "demo")


def test_make_targets_exist() -> None:
    makefile = pages.text_of("Makefile")
    for block in pages.blocks("sh"):
        for line in block.text.splitlines():
            if line.startswith("make "):
                assert f"\n{line.split()[1]}:" in makefile


def test_help_and_show_do_what_the_readme_says() -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["--help"])
    table = pages.text_of("README.md").split("| command | does |")[1].split("\n\n")[0]
    for verb in verbs():
        assert f"  {verb} " in said.stdout
        assert f"| `isthmus {verb}" in table
    assert any(line.startswith("isthmus show tiny/") for line in commands())
    shown = runner.invoke(app, ["show", "tiny/scenes_vision", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["total"] > 0


def test_whole_recipes_are_valid_and_parts_of_recipes_too() -> None:
    for block in pages.blocks("yaml"):
        data, _ = yaml.parse(block.text, block.page)
        if "name" in data:
            parse_recipe(block.text, block.page)
            continue
        for key, value in data.items():
            field = Recipe.model_fields[key]
            TypeAdapter(field.annotation).validate_python(value)


def test_the_ten_line_recipe_has_ten_lines() -> None:
    text = next(block.text for block in pages.blocks("yaml") if block.page == "README.md")
    lines = text.strip().splitlines()
    assert len(lines) == 10
    assert all(len(line) <= 120 for line in lines)


def _of_this_machine(text: str) -> bool:
    return "isthmus.load(" not in text


def _run(folder: Path, text: str) -> dict[str, Any]:
    """The names that a block of Python leaves behind."""
    file = folder / "block.py"
    file.write_text(text, encoding="utf-8")
    return runpy.run_path(str(file))


def test_python_examples_run_or_use_what_exists(tmp_path: Path) -> None:
    for block in pages.blocks("python"):
        if block.page == "ARCHITECTURE.md":
            continue
        if _of_this_machine(block.text):
            model = _run(tmp_path, block.text)["model"]
            assert sum(one.numel() for one in model.parameters()) > 0
        else:
            used = {node.attr for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Attribute)}
            assert used <= {"load", "answer"}
            assert callable(LoadedRun.answer)


def test_the_new_connector_of_architecture_works(tmp_path: Path) -> None:
    part, config, case = [block.text for block in pages.blocks("python") if block.page == "ARCHITECTURE.md"]
    known = "from typing import Literal\nfrom isthmus.config.base import Settings\n"
    connector = _run(tmp_path, part)["GatedConnector"](vision_width=8, language_width=6)
    assert connector(torch.ones(2, 5, 8)).shape == (2, connector.num_tokens(5), 6)
    assert _run(tmp_path, known + config)["Gated"].model_validate({"kind": "gated"}).kind == "gated"
    ast.parse(f"match 1:\n{case}")


def test_the_forward_pass_counts_its_tokens_right() -> None:
    tokenizer = train_tokenizer([" ".join(words())], algorithm="word", vocabulary=128, lower=True)
    codec = TextCodec(
        tokenizer=tokenizer,
        template=ChatTemplate.from_name("plain"),
        placeholder_id=len(tokenizer),
        context=192,
    )
    sample = SceneSource(split="test", num_samples=1).sample(0)
    asked = {"question": "what shape is the red thing ?", "answers": ("circle",)}
    turns = turns_of(type(sample)(**vars(sample) | asked), rows="questions", choice=0)
    text = codec.encode(turns, tokens_per_image=[16], origin="the page")
    assert (len(text.ids), text.num_supervised) == (26, 2)


def test_the_formats_of_the_data_page_are_read(tmp_path: Path) -> None:
    table = next(block.text for block in pages.blocks("csv"))
    assert len(list(csv.reader(table.splitlines()))) == 4
    (tmp_path / "captions.csv").write_text(table)
    found = Folder(tmp_path, table="captions.csv")
    assert [len(sample.captions) for sample in found] == [2, 1]
    lines, llava = [block.text for block in pages.blocks("json")]
    first, *rest = lines.splitlines()
    (tmp_path / "a.jsonl").write_text(first)
    assert len(Folder(tmp_path, table="a.jsonl").sample(0).captions) == 2
    (tmp_path / "b.jsonl").write_text("\n".join(rest))
    assert [len(sample.images) for sample in Folder(tmp_path, table="b.jsonl")] == [1, 2]
    (tmp_path / "rows.json").write_text(llava)
    assert LlavaConversations(tmp_path / "rows.json", tmp_path).sample(0).captions == ("A dog.",)
