"""A run is a directory: its recipe, its stages, and what they led to (design, section 7)."""

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from isthmus.config.load import RECIPE_FILE, load_recipe, recipe_hash, resolved_yaml, written_hash
from isthmus.config.recipe import Recipe
from isthmus.core.errors import CheckpointError, IsthmusError, MachineError, RecipeError, Stopped
from isthmus.core.files import replacing, write_json
from isthmus.run.evaluations import damaged_split
from isthmus.training.lock import LOCK

TEMPLATE = "template.json"
"""The chat template in `final/`."""

_HASH = "recipe.sha256"
_ENVIRONMENT = "environment.json"
_RESULTS = {"stages": list, "evaluation": dict, "other_tasks": dict}
"""What results hold, among other things, and as what."""
_PACKAGES = ("isthmus", "torch", "transformers", "peft", "tokenizers", "pillow", "numpy")


@dataclass(frozen=True)
class RunDirectory:
    """The places in a run's directory."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.path / RECIPE_FILE

    @property
    def recipe_hash(self) -> str:
        """The resolved recipe's hash as it was when the run was made; empty where it is missing."""
        file = self.path / _HASH
        return file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""

    def tokenizer(self, model: str | None = None) -> Path:
        """The tokenizer that was trained for this run, or for one of its named models."""
        return self.path / "tokenizer" if model is None else self.path / "tokenizer" / model

    @property
    def final(self) -> Path:
        """What the last stage left; `ask`, `evaluate` and `load` read it."""
        return self.path / "final"

    @property
    def results(self) -> Path:
        """Measured numbers."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def stage(self, name: str) -> Path:
        """A stage's folder."""
        return self.path / name

    def make(self) -> None:
        """Make the directory where it is missing.

        Raises:
            MachineError: It cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            allowed = os.access(self.path, os.W_OK | os.X_OK)
        except OSError as error:
            raise MachineError(
                f"the run directory {self.path} cannot be made ({error.strerror}); choose another with --out"
            ) from error
        if not allowed:
            raise MachineError(
                f"the run directory {self.path} cannot be written to; choose another with --out"
            )

    def read_results(self) -> dict[str, Any]:
        """What was measured so far.

        Raises:
            CheckpointError: The file was damaged.
        """
        advice = "remove it and evaluate again"
        found = read_json(self.results, advice=advice)
        for key, kind in _RESULTS.items():
            if not isinstance(found.get(key, kind()), kind):
                raise CheckpointError(f"{self.results} has {found[key]!r} as {key}; {advice}")
        if (split := damaged_split(found)) is not None:
            raise CheckpointError(f"{self.results} does not say which task was judged on {split}; {advice}")
        return found

    def add_results(self, measured: Mapping[str, Any]) -> None:
        """Write more numbers beside those that are there."""
        replace_json(self.results, self.read_results() | dict(measured))

    def read_recipe(self) -> Recipe:
        """The recipe this run was made with.

        Raises:
            CheckpointError: This is no run, or its recipe was changed by hand.
        """
        if not self.recipe_file.is_file():
            raise CheckpointError(
                f"{self.path} is no run directory (it has no recipe.yaml); give the folder that `isthmus train` wrote"
            )
        try:
            recipe = load_recipe(str(self.recipe_file))
        except RecipeError as error:
            raise CheckpointError(f"{error}; restore it, or train again in a new directory") from error
        kept, found = self.recipe_hash, written_hash(self.recipe_file)
        if kept != found:
            raise CheckpointError(
                f"{self.recipe_file} was changed after the run was made (its hash is {found[:12]}, "
                f"expected {kept[:12] or 'nothing'}); restore it, or train again in a new directory"
            )
        return recipe

    @contextmanager
    def begun(self, recipe: Recipe, *, resume: bool) -> Iterator[None]:
        """Write the recipe into a new run, or check that a run to resume has the same one.

        Where what follows is refused before a stage began, a new run is withdrawn, so that the directory is free. One
        that was stopped stays, because it goes on with --resume.

        Raises:
            CheckpointError: There is a run already and `resume` is false, or it belongs to another recipe; or the
                directory holds something else.
        """
        is_new = not self.recipe_file.is_file()
        if is_new:
            self._begin(recipe)
        elif not resume:
            raise CheckpointError(
                f"{self.path} holds a run already; go on with --resume, or choose another directory with --out"
            )
        else:
            self._check_same(recipe)
        try:
            yield
        except IsthmusError as error:
            if is_new and not isinstance(error, Stopped) and self._entries() <= self._first:
                self._withdraw()
            raise

    @property
    def _first(self) -> set[str]:
        """What a run holds before its first stage."""
        return {self.recipe_file.name, self.tokenizer().name, _HASH, _ENVIRONMENT, LOCK}

    def _entries(self) -> set[str]:
        """What lies here, but for hidden files and what a kill left of an unfinished recipe."""
        killed = f"{self.recipe_file.name}.*.tmp"
        found = {entry.name for entry in self.path.iterdir() if not entry.match(killed)}
        return {name for name in found if not name.startswith(".")}

    def _begin(self, recipe: Recipe) -> None:
        if strange := sorted(self._entries() - {_HASH, _ENVIRONMENT, LOCK}):
            raise CheckpointError(
                f"{self.path} holds no run but {', '.join(strange[:3])}; expected a new or empty directory, so choose "
                "one with --out"
            )
        write_json(self.path / _ENVIRONMENT, environment())
        (self.path / _HASH).write_text(recipe_hash(recipe) + "\n", encoding="utf-8")
        # Last and as a whole, because a recipe is what makes a directory a run.
        with replacing(self.recipe_file) as unfinished:
            unfinished.write_text(resolved_yaml(recipe), encoding="utf-8")

    def _withdraw(self) -> None:
        for name in (self.recipe_file.name, _HASH, _ENVIRONMENT):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.tokenizer(), ignore_errors=True)

    def _check_same(self, recipe: Recipe) -> None:
        earlier = self.read_recipe()
        if recipe_hash(earlier) == recipe_hash(recipe):
            return
        before, now = (_flat(one.model_dump(mode="json")) for one in (earlier, recipe))
        changed = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
        listed = "; ".join(
            f"{key}: {before.get(key)} there, {now.get(key)} now" for key in sorted(changed)[:6]
        )
        raise CheckpointError(
            f"{self.path} was made with another recipe ({listed}); resume with the same one, or choose another "
            "directory"
        )


def read_json(path: Path, *, advice: str = "restore it from a copy") -> dict[str, Any]:
    """An object that `replace_json` wrote; empty where there is none yet.

    Raises:
        CheckpointError: The file was damaged; what to do then is `advice`.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON any more; {advice}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, expected an object; {advice}")
    return found


def replace_json(path: Path, content: object) -> None:
    """Write JSON so that a crash leaves either what was there or what is new.

    Raises:
        MachineError: The disk refuses.
    """
    with replacing(path) as unfinished:
        write_json(unfinished, content)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v for name, item in value.items() for k, v in _flat(item, f"{path}.{name}".lstrip(".")).items()
        }
    if isinstance(value, list):
        return {k: v for at, item in enumerate(value) for k, v in _flat(item, f"{path}.{at}").items()}
    return {path: value}


def environment() -> dict[str, Any]:
    """What a result may depend on besides the recipe."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
