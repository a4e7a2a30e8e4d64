"""Makes `written.py` and `small.py` of this folder importable by its tests, and trains their runs once."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import small


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes lora.yaml, own.yaml, captions.yaml, dual.yaml and alone.yaml."""
    folder = tmp_path_factory.mktemp("recipes")
    language = small.language_folder(folder / "language")
    small.written(
        folder / "lora.yaml",
        small.vision_language(
            f"{{kind: pretrained, name: {language}, context: 64, lora: {{rank: 2, alpha: 4}}}}"
        ),
    )
    small.written(folder / "own.yaml", small.vision_language())
    small.written(folder / "captions.yaml", small.vision_language(evaluation=small.CAPTIONS))
    small.written(folder / "dual.yaml", small.DUAL)
    small.written(folder / "alone.yaml", small.ALONE)
    return folder


@pytest.fixture(scope="session")
def runs(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> small.Runs:
    """Finished runs; nothing may change them."""
    return small.Runs(recipes, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: on layers this small several only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
