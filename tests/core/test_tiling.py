"""Choice of grid, cropping and token counts: the published counts, transformers' own functions, and what must hold."""

import itertools
import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from isthmus.config.tiles import LLAVA_NEXT_GRIDS
from isthmus.core.sizes import Size, parse_size
from isthmus.core.tiling import Cut, best_grid, canvas_of, fitted

sys.path.insert(0, str(Path(__file__).parent))

from token_counts import PUBLISHED

TILE = Size(336, 336)
GRIDS = tuple(Size(*grid) for grid in LLAVA_NEXT_GRIDS)
TOKENS = Size(24, 24)

sides = st.integers(1, 4000)
pictures = st.builds(Size, sides, sides)
tiles = st.builds(Size, st.integers(1, 400), st.integers(1, 400))
grid_sizes = st.builds(Size, st.integers(1, 6), st.integers(1, 6))


def cut(picture: Size) -> Cut:
    return Cut(picture=picture, grid=best_grid(picture, tile=TILE, grids=GRIDS))


@pytest.mark.parametrize(("written", "count"), PUBLISHED.items())
def test_published_token_counts(written: str, count: int) -> None:
    assert cut(parse_size(written)).num_tokens(TOKENS) == count


@given(picture=pictures)
def test_transformers_counts_the_same_but_for_the_summary_token(picture: Size) -> None:
    # Its helper adds one for CLS to the thumbnail, whatever is selected later; its own caller takes it away again.
    theirs = LlavaNextProcessor._get_unpadded_features
    grid = cut(picture).grid
    assert grid is not None
    features, newlines = theirs(None, picture.height, picture.width, 24, 24, grid.height, grid.width)
    assert cut(picture).num_tokens(TOKENS) == 576 + features + newlines


@given(picture=pictures, tile=tiles, grids=st.lists(grid_sizes, min_size=1, max_size=8, unique=True))
def test_the_grid_is_the_one_that_transformers_chooses(picture: Size, tile: Size, grids: list[Size]) -> None:
    theirs = select_best_resolution(tuple(picture), [tuple(canvas_of(grid, tile)) for grid in grids])
    assert canvas_of(best_grid(picture, tile=tile, grids=grids), tile) == theirs


@given(picture=pictures, tile=tiles, grids=st.lists(grid_sizes, min_size=1, max_size=5, unique=True))
def test_no_grid_keeps_more_and_none_of_those_that_keep_as_much_wastes_less(
    picture: Size, tile: Size, grids: list[Size]
) -> None:
    def merit(grid: Size) -> tuple[int, int]:
        height, width = grid.height * tile.height, grid.width * tile.width
        scale = min(width / picture.width, height / picture.height)
        kept = min(int(picture.width * scale) * int(picture.height * scale), picture.height * picture.width)
        return kept, -(height * width - kept)

    chosen = best_grid(picture, tile=tile, grids=grids)
    best = max(merit(grid) for grid in grids)
    assert chosen == next(grid for grid in grids if merit(grid) == best)


def test_ties_go_to_the_least_waste_and_then_to_the_first() -> None:
    small = Size(336, 336)
    # Every grid holds all of it: 2x2 wastes most; one row of two and two rows of one waste the same.
    assert best_grid(small, tile=TILE, grids=(Size(2, 2), Size(1, 2), Size(2, 1))) == Size(1, 2)
    assert best_grid(small, tile=TILE, grids=(Size(2, 1), Size(2, 2), Size(1, 2))) == Size(2, 1)


def test_height_comes_before_width() -> None:
    assert cut(Size(height=300, width=1000)).grid == Size(height=1, width=3)
    assert cut(Size(height=1000, width=300)).grid == Size(height=3, width=1)


@given(picture=pictures, tile=tiles, grid=grid_sizes)
def test_scaling_fits_and_agrees_with_transformers(picture: Size, tile: Size, grid: Size) -> None:
    canvas = canvas_of(grid, tile)
    size = fitted(picture, canvas)
    assert size == get_patch_output_size(_Sized(picture), tuple(canvas), "channels_first")
    assert 1 <= size.height <= canvas.height and 1 <= size.width <= canvas.width
    assert size.height == canvas.height or size.width == canvas.width


class _Sized:
    """Looks like a picture of some size to transformers."""

    def __init__(self, size: Size) -> None:
        self.shape = (3, *size)


@given(picture=pictures, grid=grid_sizes, side=st.integers(1, 24))
@settings(deadline=None)
def test_the_kept_tokens_are_those_that_transformers_keeps(picture: Size, grid: Size, side: int) -> None:
    rows, columns = grid.height * side, grid.width * side
    places = torch.arange(rows * columns).reshape(1, rows, columns)
    kept_rows, kept_columns = Cut(picture=picture, grid=grid).kept(Size(side, side))
    ours = [row * columns + column for row, column in itertools.product(kept_rows, kept_columns)]
    assert ours == unpad_image(places, tuple(picture)).flatten().tolist()


@given(picture=pictures, grid=grid_sizes, side=st.integers(1, 24))
def test_one_side_is_kept_whole_and_the_other_keeps_what_is_shown(
    picture: Size, grid: Size, side: int
) -> None:
    rows, columns = grid.height * side, grid.width * side
    kept_rows, kept_columns = Cut(picture=picture, grid=grid).kept(Size(side, side))
    assert len(kept_rows) == rows or len(kept_columns) == columns
    scale = min(rows / picture.height, columns / picture.width)
    for kept, length, shown in (
        (kept_rows, rows, picture.height * scale),
        (kept_columns, columns, picture.width * scale),
    ):
        # Centred, all of the whole positions shown, and at most one more where the excess is odd.
        assert kept.start == length - kept.stop
        assert math.floor(shown - 1e-6) <= len(kept) <= math.floor(shown + 1e-6) + 1
        assert (length - len(kept)) % 2 == 0


@given(picture=pictures)
def test_the_number_of_tokens_lies_within_the_published_range(picture: Size) -> None:
    one = cut(picture)
    assert one.num_tiles in (3, 4, 5)
    assert 576 <= one.num_tokens(TOKENS) <= 2928


def test_a_thumbnail_alone_has_one_newline() -> None:
    assert Cut(picture=Size(50, 50), grid=None).num_tokens(TOKENS) == 577
    assert Cut(picture=Size(50, 50), grid=None).num_tiles == 1
