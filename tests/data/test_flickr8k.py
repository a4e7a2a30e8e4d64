"""From the real shards to batches."""

import os
from pathlib import Path

import pytest

from isthmus.core.sizes import Size
from isthmus.data.images import CLIP_MEAN, CLIP_STD, ImageProcessor
from isthmus.data.processor import PictureReader, VisionLanguageProcessor
from isthmus.data.samples import Source
from isthmus.data.sources.shards import Shards
from isthmus.data.stream import BatchStream, StreamOptions
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer

SHARDS = Path(os.environ.get("ISTHMUS_SHARED", "../shared")) / "data" / "flickr8k"


@pytest.fixture(scope="module")
def photos() -> Source:
    if not SHARDS.is_dir():
        pytest.skip(f"the shared photos {SHARDS} are not on this machine")
    return Shards(str(SHARDS / "{val,test}-*.tar"))


def test_every_photo_has_five_captions(photos: Source) -> None:
    assert len(photos) == 2000
    assert photos.format == "tar shards (2 file(s), 2000 keys, pictures with json)"
    assert {photos.num_captions(index) for index in range(len(photos))} == {5}
    assert photos[0].images[0].picture().size == (224, 224)


@pytest.mark.parametrize("algorithm", ["word", "bpe"])
def test_photos_become_batches(photos: Source, algorithm: str) -> None:
    captions = [caption for sample in photos[:400] for caption in sample.captions]
    tokenizer = train_tokenizer(captions, algorithm=algorithm, vocabulary=1000, lower=True)
    codec = TextCodec(
        tokenizer=tokenizer,
        template=ChatTemplate.from_name("plain"),
        placeholder_id=len(tokenizer),
        context=128,
    )
    images = ImageProcessor(size=Size(224, 224), resize="none", mean=CLIP_MEAN, std=CLIP_STD)
    processor = VisionLanguageProcessor(
        pictures=PictureReader(images=images), codec=codec, tokens_per_image=49
    )
    options = StreamOptions(rows="captions", batch_size=8, micro_batch_size=4, captions="all")
    with BatchStream(processor=processor, source=photos, options=options) as stream:
        assert stream.steps_per_epoch == 1250
        first, second = stream.micro_batches(0)
        report = stream.report()
    assert first.pixels.shape == second.pixels.shape == (4, 3, 224, 224)
    assert first.layout.tokens_per_image == (49, 49, 49, 49)
    assert (first.token_ids == codec.placeholder_id).sum(dim=1).tolist() == [49] * 4
    assert report.skipped == 0
    assert 0.1 < report.supervised_fraction < 0.4
    if algorithm == "bpe":
        lowered = {caption.lower().strip() for sample in photos for caption in sample.captions}
        assert {codec.decode(row.tolist()) for row in first.token_ids} <= lowered
