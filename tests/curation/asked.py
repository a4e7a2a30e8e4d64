"""Tables of facts for tests, a way to name the stub server, and what a run left behind."""

import json
from pathlib import Path
from typing import Any

from stub import Stub

FAST = ("--requests-per-minute", "60000", "--timeout-s", "5")


def table(folder: Path, num_rows: int = 4, **changes: Any) -> Path:
    """Facts of some pictures; the pictures themselves are not there, because nobody may ask for them."""
    rows = [
        {
            "image": f"photo-{number}.jpg",
            "captions": [f"A dog runs past a fence with {number} posts.", "A dog in a garden."],
            "boxes": [{"label": "dog", "box": [0.1, 0.2, 0.5, 0.9]}],
        }
        for number in range(num_rows)
    ]
    rows[-1] |= changes
    file = folder / "facts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def by(stub: Stub) -> tuple[str, ...]:
    return ("--endpoint", stub.url, "--model", "tiny", *FAST)


def kept(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "conversations.json").read_text())


def rejects(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
