"""Measured tables on Flickr8k: `retrieval RUN...` against the ridge floor, `caption RUN...` beside the human line.

Each writes a page and its numbers into docs/results. The pages hold numbers and what models wrote, never a photo or a
caption of the data set, which has no open licence.
"""

import argparse
import logging
import sys
from pathlib import Path

import best_page
import caption_page
import retrieval_page
import torch

from isthmus.core.errors import IsthmusError


def main() -> int:
    """Read the command line, make one page, and return the exit code of the documented kind."""
    parser = argparse.ArgumentParser(description="Make a results page for runs on Flickr8k.")
    parser.add_argument("task", choices=("retrieval", "caption"))
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run directories: seeds of one recipe, or caption runs to compare"
    )
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="test by default; choose on val"
    )
    parser.add_argument(
        "--against", nargs="+", type=Path, default=[], help="retrieval: other runs, on a page that compares"
    )
    parser.add_argument("--threads", type=int, default=None, help="processor threads; all cores by default")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    try:
        if given.against:
            made = best_page.make(given.runs, given.against, split=given.split)
        else:
            page = retrieval_page if given.task == "retrieval" else caption_page
            made = page.make(given.runs, split=given.split)
    except IsthmusError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"written: {made.relative_to(Path(__file__).parents[1])}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
