"""Marked regions: alpha's numbers, its place beside the picture, masks that do not fit, and whole pictures mixed in."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.core.errors import DataError
from isthmus.core.sizes import Size
from isthmus.data.collate import collate
from isthmus.data.images import ImageProcessor
from isthmus.data.marked import Mask, Region, alpha_of, everywhere, nowhere
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.pictures import BadSample
from isthmus.data.processor import PictureReader
from isthmus.data.samples import MemorySource, Sample
from isthmus.data.sources.scenes import SceneSource
from isthmus.data.stream import BatchStream, StreamOptions
from isthmus.data.text import CaptionEncoder
from isthmus.data.vocabulary import train_tokenizer

ON, OFF = 0.5 / 0.26, -0.5 / 0.26


def images(resize: str = "squash", side: int = 16) -> ImageProcessor:
    return ImageProcessor(
        size=Size(side, side), resize=resize, mean=(0.5,) * 3, std=(0.5,) * 3, resample="nearest"
    )


def processor(side: int = 32) -> DualEncoderProcessor:
    tokenizer = train_tokenizer(
        ["there is a large small medium red ring ."], algorithm="word", vocabulary=40, lower=True
    )
    captions = CaptionEncoder(tokenizer=tokenizer, context=16)
    return DualEncoderProcessor(
        pictures=PictureReader(images=images(side=side)), captions=captions, marks=True
    )


def test_a_mask_is_normalised_as_in_the_published_code() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[2:5, 7:] = True
    alpha = alpha_of(mask, picture=Size(16, 16), images=images(), name="it")
    assert alpha.shape == (1, 16, 16)
    assert alpha[0][torch.from_numpy(mask)].unique().tolist() == pytest.approx([1.9230769])
    assert alpha[0][torch.from_numpy(~mask)].unique().tolist() == pytest.approx([-1.9230769])
    assert everywhere(images()).unique().tolist() == pytest.approx([ON])
    assert nowhere(images()).unique().tolist() == pytest.approx([OFF])


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_a_mask_goes_where_its_picture_goes(resize: str) -> None:
    mask = np.zeros((24, 48), dtype=bool)
    mask[6:18, 20:40] = True
    white = Image.fromarray(np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2))
    prepared = images(resize)
    alpha = alpha_of(mask, picture=Size(24, 48), images=prepared, name="it")
    picture = prepared(white)[0]
    # Bars around a padded picture have its mean colour; they are outside every region.
    assert torch.equal(alpha[0] > 0, picture > 0.5)
    assert 0 < float((alpha > 0).float().mean()) < 0.6


def test_a_mask_of_another_size_than_its_picture_is_refused() -> None:
    with pytest.raises(BadSample, match=r"dog\.jpg is 16x32 pixels, but the mask of its region is 32x16"):
        alpha_of(np.ones((16, 32), dtype=bool), picture=Size(32, 16), images=images(), name="dog.jpg")


def test_scenes_have_a_region_for_each_thing() -> None:
    source = SceneSource(split="train", num_samples=8, image_size=32)
    for index in range(8):
        sample = source.sample(index)
        scene = sample.images[0].scene
        masks = source.world.region_masks(scene)
        assert len(sample.regions) == len(scene.things) == len(masks)
        for region, thing, mask in zip(sample.regions, scene.things, masks, strict=True):
            assert region.caption == f"there is a {thing.size} {thing.colour} {thing.shape} ."
            assert np.array_equal(region.mask.read(), mask)
            assert mask.any()


def test_rows_of_regions_hold_one_region_and_its_words() -> None:
    sample = SceneSource(split="train", num_samples=9, image_size=32).sample(4)
    made = processor()
    for choice in range(2 * len(sample.regions)):
        region = sample.regions[choice % len(sample.regions)]
        row = made.row(sample, rows="regions", choice=choice)
        (picture,) = row.pictures
        assert torch.equal(picture.alpha[0] > 0, torch.from_numpy(region.mask.read()))
        assert row.token_ids == made.captions.encode_caption(region.caption)[0]
    whole = made.row(sample, rows="captions", choice=0)
    assert torch.equal(whole.pictures[0].alpha, everywhere(made.pictures.images))
    batch = collate([row, whole], pad_id=0)
    assert batch.alpha.shape == (2, 1, 32, 32)
    assert batch.pixels.shape == (2, 3, 32, 32)
    with pytest.raises(DataError, match="row 3 has no region"):
        made.row(Sample(id="3", origin="row 3", images=sample.images), rows="regions", choice=0)


@dataclass(frozen=True)
class Corner(Mask):
    """A square whose first pixel alone is marked."""

    side: int

    def read(self) -> np.ndarray:
        mask = np.zeros((self.side, self.side), dtype=bool)
        mask[0, 0] = True
        return mask


def test_whole_pictures_are_mixed_in_at_their_share() -> None:
    scene = SceneSource(split="train", num_samples=1, image_size=16).sample(0)
    one = Sample(
        id="0",
        origin="",
        images=scene.images,
        captions=("a ring",),
        regions=(Region("a ring .", Corner(16)),),
    )
    source = MemorySource([one] * 200)
    settings = {"rows": "regions", "batch_size": 100, "whole": 0.1, "workers": 0, "stage": "regions"}
    with BatchStream(processor=processor(16), source=source, options=StreamOptions(**settings)) as stream:
        whole = [[bool((one > 0).all()) for one in stream.micro_batches(step)[0].alpha] for step in range(4)]
        assert whole[1] == [bool((one > 0).all()) for one in stream.micro_batches(1)[0].alpha]
    # 400 draws at 0.1: 40, deviation 6.
    assert 16 < sum(map(sum, whole)) < 64
    assert whole[:2] != whole[2:], "each epoch draws anew"


def test_a_bad_mask_names_its_picture() -> None:
    sample = SceneSource(split="train", num_samples=1, image_size=32).sample(0)
    bad = Sample(id="0", origin="row 0", images=sample.images, regions=(Region("a ring .", Corner(5)),))
    with pytest.raises(BadSample, match=r"scene train-0 is 32x32 pixels, but the mask of its region is 5x5"):
        processor().row(bad, rows="regions", choice=0)
