"""Strips of pictures that an evaluation leaves in the run directory, for its report."""

from pathlib import Path
from typing import final

from PIL import Image

FOLDER = "reconstructions"
"""Where the strips of the latest evaluation lie in the run directory."""

NUM_SHOWN = 12


@final
class StripFolder:
    """Takes the first strips of an evaluation; those of an earlier one are removed.

    Args:
        run: The run directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._saved = 0
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()

    @property
    def has_room(self) -> bool:
        """Whether another strip is wanted."""
        return self._saved < NUM_SHOWN

    def save(self, pictures: list[Image.Image]) -> str:
        """Write pictures of one size side by side; returns the file's path inside the run directory."""
        width, height = pictures[0].size
        strip = Image.new("RGB", (width * len(pictures), height))
        for number, picture in enumerate(pictures):
            strip.paste(picture, (number * width, 0))
        name = f"{FOLDER}/{self._saved}.png"
        strip.save(self._run / name)
        self._saved += 1
        return name
