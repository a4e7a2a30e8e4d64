"""The first run, whole: does the model learn to look, within the stated time's worth of steps?"""

from pathlib import Path

import pytest

from isthmus.core.options import RunOptions
from isthmus.run.demo import demo

REAL, LEAD = 0.90, 0.45
"""Asked of the demo: right answers on held-out compositions, and their lead over the best control."""


@pytest.mark.learns
def test_the_demo_looks_at_the_picture(tmp_path: Path) -> None:
    result = demo(out=tmp_path / "demo", options=RunOptions())
    shares = {name: answers["accuracy"] for name, answers in result["answers"].items()}
    assert result["verdict"].endswith("it looks at the picture")
    assert shares["real"] >= REAL
    assert shares["real"] - max(shares[name] for name in ("blank", "shuffled", "wrong")) >= LEAD
    assert (tmp_path / "demo" / "report.html").is_file()
