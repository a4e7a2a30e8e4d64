"""Makes `stub.py` of this folder importable by its tests, and stops every stub server that a test starts."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stub import Behave, Stub
from typer.testing import CliRunner, Result

from isthmus.cli.app import app
from isthmus.curation.instructions import pace


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_BASE_S", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[[Behave], Stub]]:
    """Start a stub server that behaves in a given way; it is gone when the test ends."""
    started: list[Stub] = []

    def start(behave: Behave) -> Stub:
        started.append(Stub(behave))
        return started[-1]

    yield start
    for stub in started:
        stub.stop()


@pytest.fixture
def instruct(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run `isthmus curate instruct` in this process."""
    kept = dict(os.environ)
    yield lambda *arguments: CliRunner().invoke(app, ["curate", "instruct", *map(str, arguments)])
    os.environ.clear()
    os.environ.update(kept)
