"""Clips of the built-in world become rows whose frames lie one after another."""

import pytest
import torch
from PIL import Image

from isthmus.core.errors import DataError, UsageError
from isthmus.core.sizes import Size
from isthmus.data.clips import ClipImage
from isthmus.data.collate import collate
from isthmus.data.controls import BlankPictures
from isthmus.data.images import ImageProcessor
from isthmus.data.processor import PictureReader, VisionLanguageProcessor
from isthmus.data.scenes import Scenes, words
from isthmus.data.sources.scene_clips import SceneClips
from isthmus.data.templates import TEMPLATES
from isthmus.data.text import TextCodec
from isthmus.data.vocabulary import train_tokenizer

IMAGES = ImageProcessor(size=Size(32, 32), resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)


def processor(max_frames: int = 4) -> VisionLanguageProcessor:
    tokenizer = train_tokenizer([" ".join(words())], algorithm="word", vocabulary=200, lower=True)
    codec = TextCodec(
        tokenizer=tokenizer, template=TEMPLATES["plain"], placeholder_id=len(tokenizer), context=64
    )
    pictures = PictureReader(images=IMAGES, max_frames=max_frames)
    return VisionLanguageProcessor(pictures=pictures, codec=codec, tokens_per_image=2)


def test_a_clip_is_one_medium_of_several_frames() -> None:
    source = SceneClips(split="train", num_samples=6, frames=3, image_size=32)
    rows = [processor().row(source[index], rows="questions", choice=0) for index in range(2)]
    batch = collate(rows, pad_id=0)
    assert batch.layout is not None
    assert batch.layout.frames_per_image == (3, 3)
    assert batch.layout.tokens_per_image == (2, 2)
    assert batch.num_images == 2
    world = Scenes(split="train", image_size=32)
    drawn = [IMAGES(world.picture(scene)) for index in range(2) for scene in world.clip(index, 3).frames]
    assert batch.pixels is not None
    assert torch.equal(batch.pixels, torch.stack(drawn))


def test_what_a_clip_is_asked() -> None:
    source = SceneClips(split="val", num_samples=6)
    assert [source[index].kind for index in range(3)] == ["motion", "colour", "shape"]
    sample = source[0]
    clip = Scenes(split="val").clip(0)
    assert (sample.question, sample.answers) == (clip.questions[0].text, (clip.questions[0].answer,))
    assert [turn.text for turn in sample.turns[1::2]] == [one.answer for one in clip.questions]
    assert sample.captions == clip.captions


def test_a_clip_is_named_by_its_frames_and_shown_as_a_strip() -> None:
    source = SceneClips(split="train", num_samples=2, frames=2, image_size=32)
    clip, other = source[0].images[0], source[1].images[0]
    assert isinstance(clip, ClipImage)
    assert (
        clip.digest()
        == SceneClips(split="train", num_samples=9, frames=2, image_size=32)[0].images[0].digest()
    )
    assert len({clip.digest(), other.digest(), ClipImage(clip.frames[::-1], name="back").digest()}) == 3
    strip = clip.picture()
    assert strip.size == (64, 32)
    assert strip.crop((32, 0, 64, 32)).tobytes() == clip.frames[1].picture().tobytes()


def test_the_blank_control_is_one_blank_frame_of_each_clip() -> None:
    source = BlankPictures(SceneClips(split="train", num_samples=1, image_size=32), IMAGES)
    row = processor().row(source.sample(0), rows="questions", choice=0)
    blank = IMAGES(Image.new("RGB", (32, 32), IMAGES.mean_colour))
    assert [torch.equal(seen, blank) for seen in row.pictures[0].looked_at] == [True]


@pytest.mark.parametrize(("most", "takes"), [(2, "takes 2"), (0, "takes no clips")])
def test_clips_that_do_not_fit_are_refused(most: int, takes: str) -> None:
    source = SceneClips(split="train", num_samples=1, frames=3)
    with pytest.raises(DataError, match=f"clip train-clip-0 has 3 frames, but this model {takes}"):
        processor(most).row(source[0], rows="questions", choice=0)
    with pytest.raises(UsageError, match="2 to 16 frames, not 17"):
        SceneClips(split="train", num_samples=1, frames=17)
