"""Runs the command line in this process, with a function in the place of a verb's work."""

import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli.app import app

Install = Callable[[str, Callable[..., Any]], None]


Isthmus = Callable[..., Result]


@pytest.fixture(autouse=True)
def _environment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a function in the place of `isthmus.run.VERB.VERB`, so that only the command line is tested."""

    def put(name: str, function: Callable[..., Any]) -> None:
        module = types.ModuleType(f"isthmus.run.{name}")
        vars(module)[name] = function
        monkeypatch.setitem(sys.modules, "isthmus.run", types.ModuleType("isthmus.run"))
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


@pytest.fixture
def isthmus() -> Isthmus:
    """Run the command line in this process."""
    return lambda *arguments: CliRunner().invoke(app, list(arguments))
