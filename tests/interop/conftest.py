"""Makes the helpers of this folder and the twins of `tests/parity` importable."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "parity")]
