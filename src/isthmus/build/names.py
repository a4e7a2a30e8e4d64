"""Where a recipe's names point to: weights shipped with the package, folders, hub names and their cards."""

from pathlib import Path

from isthmus.config.paths import expand
from isthmus.core.errors import RecipeError

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
"""Weights that come with the package; each folder says which recipe makes it again."""

CARDS = Path(__file__).resolve().parent.parent / "architectures"
"""The published configuration of hub models, one JSON file each, named as the model with `--` for `/`."""


def card_file(name: str) -> Path:
    """Where the card of a hub model lies if it is shipped."""
    return CARDS / f"{name.replace('/', '--')}.json"


def locate(name: str, *, path: str) -> str:
    """A folder or file of this machine, or the hub name unchanged.

    Args:
        name: `shipped:NAME`, a path (which may start with `${shared}`), or a hub name.
        path: Where the name stands in the recipe, for messages.

    Raises:
        RecipeError: A shipped name or a path does not exist.
    """
    if name.startswith("shipped:"):
        folder = SHIPPED / name.removeprefix("shipped:")
        if not folder.is_dir():
            known = ", ".join(sorted(entry.name for entry in SHIPPED.iterdir() if entry.is_dir())) or "none"
            raise RecipeError(f"{path}: no weights called '{name}' are shipped; shipped are: {known}")
        return str(folder)
    expanded = expand(name)
    is_path = name.startswith(("${", "/", ".", "~"))
    if is_path and not Path(expanded).expanduser().exists():
        raise RecipeError(
            f"{path}: '{name}' is not there (looked for {expanded}); "
            "correct the path, or set ISTHMUS_SHARED to the folder that ${shared} stands for"
        )
    return str(Path(expanded).expanduser()) if is_path else name
