"""Tiles equal those of transformers' own LLaVA-NeXT processor, and rows count the visual tokens of each picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from isthmus.core.batch import exchange_pictures, next_pictures
from isthmus.core.errors import DataError
from isthmus.core.sizes import Size
from isthmus.core.tiling import Cut
from isthmus.data.collate import collate
from isthmus.data.controls import BlankPictures, MemoryImage
from isthmus.data.images import CLIP_MEAN, CLIP_STD, ImageProcessor
from isthmus.data.processor import PictureReader, VisionLanguageProcessor
from isthmus.data.samples import ImagePart, MemorySource, Sample, Turn
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.tiles import Tiler
from isthmus.data.vocabulary import train_tokenizer

SIDE = 16
GRIDS = (Size(1, 2), Size(2, 1), Size(2, 2), Size(3, 1), Size(1, 3))
WORDS = train_tokenizer(["what is it a dog cat ?"], algorithm="word", vocabulary=64, lower=True)
IMAGE = len(WORDS)


def tiler() -> Tiler:
    images = ImageProcessor(size=Size(SIDE, SIDE), resize="crop", mean=CLIP_MEAN, std=CLIP_STD)
    return Tiler(images=images, grids=GRIDS)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("height", "width"),
    [(16, 16), (40, 40), (17, 64), (64, 17), (100, 31), (9, 100), (7, 5), (33, 47), (1, 90)],
)
def test_tiles_are_those_of_transformers(height: int, width: int) -> None:
    theirs = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[[grid.height * SIDE, grid.width * SIDE] for grid in GRIDS],
    )
    picture = noise(height, width)
    expected = theirs(picture, return_tensors="pt")
    tiles, cut = tiler()(picture)
    assert tiles.shape == expected["pixel_values"][0].shape
    assert torch.equal(tiles, expected["pixel_values"][0])
    assert tuple(cut.picture) == tuple(expected["image_sizes"][0].tolist())
    assert cut.num_tiles == len(tiles)


def test_the_thumbnail_comes_first_and_tiles_row_by_row() -> None:
    picture = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        picture.paste(colour, (column * SIDE, row * SIDE, (column + 1) * SIDE, (row + 1) * SIDE))
    tiles, cut = tiler()(picture)
    assert cut.grid == Size(2, 2)
    for tile, colour in zip(tiles[1:], colours, strict=True):
        plain = tiler().images.normalised(Image.new("RGB", (SIDE, SIDE), colour))
        assert torch.equal(tile, plain)


def processor(context: int = 200) -> VisionLanguageProcessor:
    codec = TextCodec(
        tokenizer=WORDS, template=ChatTemplate.from_name("plain"), placeholder_id=IMAGE, context=context
    )
    reader = PictureReader(images=tiler().images, tiler=tiler())
    return VisionLanguageProcessor(pictures=reader, codec=codec, tokens_per_image=4)


def sample(*sizes: tuple[int, int], order: tuple[int, ...] | None = None) -> Sample:
    images = tuple(MemoryImage(name=f"p{at}", image=noise(*size, seed=at)) for at, size in enumerate(sizes))
    places = tuple(ImagePart(at) for at in (order if order is not None else range(len(sizes))))
    turns = (Turn("user", (*places, "what is it ?")), Turn("assistant", ("a dog",)))
    return Sample(id="a", origin="a.json row 3", images=images, turns=turns)


def test_each_picture_takes_the_tokens_of_its_own_cut() -> None:
    row = processor().row(sample((32, 32), (16, 48), (48, 16)), rows="conversations", choice=0)
    # 2 x 2 tokens a tile: 4 + 4 * (4 + 1), 4 + 2 * (6 + 1), 4 + 6 * (2 + 1).
    assert row.tokens_per_image == (24, 18, 22)
    assert row.token_ids is not None
    assert row.token_ids.count(IMAGE) == 24 + 18 + 22
    batch = collate([row, processor().row(sample(), rows="conversations", choice=0)], pad_id=0)
    assert batch.pixels is not None and batch.layout is not None
    assert batch.pixels.shape == (5 + 4 + 4, 3, SIDE, SIDE)
    assert batch.num_images == 3
    assert batch.layout.images_per_row == (3, 0)
    assert [cut.grid for cut in batch.layout.cuts] == [Size(2, 2), Size(1, 3), Size(3, 1)]


def test_a_picture_named_twice_and_one_not_named() -> None:
    row = processor().row(sample((32, 32), (16, 48), order=(1, 1)), rows="conversations", choice=0)
    assert row.tokens_per_image == (18, 18)
    assert row.pictures[0] is row.pictures[1]


def test_a_picture_that_does_not_fit_is_refused_before_anything_is_computed() -> None:
    needs = 1 + 24 + 18
    processor(context=needs + 8).row(sample((32, 32), (16, 48)), rows="conversations", choice=0)
    message = f"a.json row 3 needs {needs} tokens up to the end of its last picture, but the context has {needs - 1}"
    with pytest.raises(DataError, match=message):
        processor(context=needs - 1).row(sample((32, 32), (16, 48)), rows="conversations", choice=0)


def test_truncation_cuts_text_and_never_a_picture() -> None:
    whole = processor().row(sample((32, 32)), rows="conversations", choice=0)
    assert whole.token_ids is not None
    # From the first word of the answer on there is something to learn.
    for context in range(len(whole.token_ids) - 2, len(whole.token_ids)):
        row = processor(context=context).row(sample((32, 32)), rows="conversations", choice=0)
        assert row.truncated and row.token_ids is not None
        assert row.token_ids.count(IMAGE) == 24
    for context in range(1 + 24, len(whole.token_ids) - 2):
        with pytest.raises(DataError, match="no supervised token"):
            processor(context=context).row(sample((32, 32)), rows="conversations", choice=0)


def test_pictures_are_exchanged_with_their_tiles_and_only_for_as_many_tokens() -> None:
    rows = [
        processor().row(sample(size), rows="conversations", choice=0)
        for size in [(32, 32), (16, 48), (64, 64)]
    ]
    batch = collate(rows, pad_id=0)
    assert next_pictures(batch) == [2, 1, 0]
    other = exchange_pictures(batch, [2, 1, 0])
    assert batch.pixels is not None and other.pixels is not None and other.layout is not None
    assert torch.equal(other.pixels, torch.cat([batch.pixels[9:14], batch.pixels[5:9], batch.pixels[:5]]))
    assert other.layout.cuts[0] == Cut(picture=Size(64, 64), grid=Size(2, 2))
    assert other.image_ids == tuple(reversed(batch.image_ids))
    with pytest.raises(ValueError, match="different numbers of visual tokens"):
        exchange_pictures(batch, [1, 0, 2])


def test_a_blank_is_as_large_as_the_picture_it_stands_for() -> None:
    source = MemorySource([sample((16, 48), (32, 32))])
    blank = BlankPictures(source, tiler().images, keep_sizes=True)[0]
    rows = [processor().row(one, rows="conversations", choice=0) for one in (source[0], blank)]
    assert rows[0].token_ids == rows[1].token_ids
    thumbnail = rows[1].pictures[0].looked_at[0]
    assert thumbnail.abs().max() < 0.02  # the mean colour, rounded down to 8 bits
    assert blank.images[0].digest() != blank.images[1].digest()
