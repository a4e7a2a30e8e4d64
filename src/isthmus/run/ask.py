"""`isthmus ask`: one picture, one answer or caption."""

import time
from pathlib import Path
from typing import Any

from isthmus.core.options import RunOptions
from isthmus.run.load import load, picture_of


def ask(run: Path, image: Path, question: str | None, options: RunOptions) -> dict[str, Any]:
    """What the run's model says of a picture (design, section 7).

    Raises:
        CheckpointError: There is no finished run.
        DataError: The picture cannot be read.
    """
    picture = picture_of(image)  # before the model, which takes longer
    loaded = load(run, options)
    started = time.monotonic()
    answer = loaded.ask(picture, question)
    return {"answer": answer.text, "tokens": answer.num_tokens, "seconds": time.monotonic() - started}
