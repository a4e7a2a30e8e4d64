"""From samples to batches: turns, placeholders, padding, stored features, passes in order."""

import io

import pytest
import torch
from PIL import Image
from torch import Tensor

from isthmus.core.batch import IGNORED
from isthmus.core.errors import DataError
from isthmus.core.sizes import Size
from isthmus.data.collate import collate
from isthmus.data.images import CLIP_MEAN, CLIP_STD, ImageProcessor, digest
from isthmus.data.pairs import DualEncoderProcessor
from isthmus.data.passes import Pass
from isthmus.data.processor import (
    LanguageProcessor,
    PictureReader,
    VisionLanguageProcessor,
)
from isthmus.data.rows import RowIndex
from isthmus.data.samples import BytesImage, ImagePart, MemorySource, Sample, Turn
from isthmus.data.templates import ChatTemplate
from isthmus.data.text import CaptionEncoder, TextCodec
from isthmus.data.vocabulary import train_tokenizer

WORDS = train_tokenizer(
    ["w0 w1 w2 w3 w4 w5 w6 w7 what is it ? left red"], algorithm="word", vocabulary=64, lower=True
)
IMAGE_ID = len(WORDS)
SIZE = Size(8, 8)


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def images() -> ImageProcessor:
    return ImageProcessor(size=SIZE, resize="none", mean=CLIP_MEAN, std=CLIP_STD)


def codec(context: int = 64) -> TextCodec:
    return TextCodec(
        tokenizer=WORDS, template=ChatTemplate.from_name("plain"), placeholder_id=IMAGE_ID, context=context
    )


def processor(context: int = 64, prompt: str | None = None, stored: object = None) -> VisionLanguageProcessor:
    reader = PictureReader(images=images(), stored=stored)
    return VisionLanguageProcessor(pictures=reader, codec=codec(context), tokens_per_image=2, prompt=prompt)


def sample(number: int, data: bytes | None = None, captions: int = 2) -> Sample:
    image = BytesImage(png(number) if data is None else data, name=f"s{number}.png")
    return Sample(
        id=f"s{number}",
        origin=f"table.csv row {number}",
        images=(image,),
        captions=tuple(f"w{(number + at) % 8}" for at in range(captions)),
        question="what is it ?",
        answers=("red", "left"),
    )


def ids(text: str) -> list[int]:
    return WORDS(text, add_special_tokens=False).input_ids


def test_a_caption_row() -> None:
    row = processor().row(sample(1), rows="captions", choice=5)
    assert row.token_ids == [2, IMAGE_ID, IMAGE_ID, *ids("w2"), 3]
    assert row.targets == [IGNORED] * 3 + [*ids("w2"), 3]
    assert row.tokens_per_image == (2,)
    assert row.pictures[0].id == digest(png(1))
    prompted = processor(prompt="what is it ?").row(sample(1), rows="captions", choice=0, purpose="prompt")
    assert prompted.token_ids == [2, IMAGE_ID, IMAGE_ID, *ids("what is it ?")]
    assert prompted.targets is None


def test_a_question_row_learns_the_first_answer() -> None:
    row = processor().row(sample(1), rows="questions", choice=0)
    assert row.token_ids == [2, IMAGE_ID, IMAGE_ID, *ids("what is it ? red"), 3]
    assert [target for target in row.targets if target != IGNORED] == [*ids("red"), 3]
    prompt = processor().row(sample(1), rows="questions", choice=0, purpose="prompt")
    assert prompt.token_ids == row.token_ids[: len(prompt.token_ids)]


def test_a_conversation_reads_only_the_pictures_it_names_in_its_order() -> None:
    turns = (Turn("user", (ImagePart(2), "w1", ImagePart(0))), Turn("assistant", ("w2",)))
    pictures = tuple(BytesImage(data, name="x") for data in (png(10), b"never read", png(30)))
    row = processor().row(
        Sample(id="a", origin="o", images=pictures, turns=turns), rows="conversations", choice=0
    )
    assert [picture.id for picture in row.pictures] == [digest(png(30)), digest(png(10))]
    assert row.token_ids == [2, IMAGE_ID, IMAGE_ID, *ids("w1"), IMAGE_ID, IMAGE_ID, *ids("w2"), 3]


def test_the_words_image_in_brackets_stay_text() -> None:
    typed = Sample(id="a", origin="o", images=(BytesImage(png(0), name="x"),), captions=("w1 <image>",))
    assert processor().row(typed, rows="captions", choice=0).token_ids.count(IMAGE_ID) == 2


def test_text_rows_supervise_all_but_the_first_token() -> None:
    row = LanguageProcessor(codec=codec()).row(sample(1), choice=1)
    assert row.token_ids == row.targets == [2, *ids("w2"), 3]
    assert row.pictures == ()


def test_dual_encoder_rows() -> None:
    encoder = DualEncoderProcessor(
        pictures=PictureReader(images=images()), captions=CaptionEncoder(tokenizer=WORDS, context=8)
    )
    batch = collate([encoder.row(sample(at), choice=0) for at in (1, 2)], pad_id=0)
    assert batch.token_ids.tolist() == [[2, *ids("w1"), 3], [2, *ids("w2"), 3]]
    assert batch.pixels.shape == (2, 3, 8, 8)
    assert batch.layout is None
    assert batch.targets is None


@pytest.mark.parametrize("rows", ["captions", "questions", "conversations", "text"])
def test_what_a_sample_lacks_is_named(rows: str) -> None:
    with pytest.raises(DataError, match=rf"a\.csv row 3 has no .*rows of kind '{rows}'"):
        processor().row(Sample(id="a", origin="a.csv row 3"), rows=rows, choice=0)


def test_rows_with_none_one_and_two_pictures_share_a_batch() -> None:
    one = processor().row(sample(1), rows="captions", choice=0)
    none = processor().row(sample(1), rows="text", choice=0)
    turns = (Turn("user", (ImagePart(0), ImagePart(0))), Turn("assistant", ("w2",)))
    two = Sample(id="t", origin="o", images=(BytesImage(png(9), name="x"),), turns=turns)
    batch = collate([one, none, processor().row(two, rows="conversations", choice=0)], pad_id=0)
    assert batch.layout.images_per_row == (1, 0, 2)
    assert batch.layout.tokens_per_image == (2, 2, 2)
    assert batch.num_images == 3
    assert batch.attention_mask.sum(dim=1).tolist() == [5, 3, 7]
    assert batch.token_ids[1].tolist() == [2, *ids("w1"), 3, 0, 0, 0, 0]
    assert batch.targets[1].tolist() == [2, *ids("w1"), 3] + [IGNORED] * 4
    assert (batch.token_ids == IMAGE_ID).sum(dim=1).tolist() == [2, 0, 4]
    left = collate([one, none], pad_id=0, side="left")
    assert left.token_ids[1].tolist() == [0, 0, 2, *ids("w1"), 3]
    assert left.attention_mask[1].tolist() == [False, False, True, True, True]
    assert collate([none], pad_id=0).pixels is None


class Store:
    """Features of the pictures it was given, without their pixels."""

    def __init__(self, *known: bytes) -> None:
        self.known = {digest(data): torch.full((4, 5), float(at)) for at, data in enumerate(known)}

    def __contains__(self, digest: str) -> bool:
        return digest in self.known

    def read(self, digest: str) -> Tensor:
        return self.known[digest]


def test_stored_features_replace_decoding() -> None:
    stored = processor(stored=Store(b"not even a picture", png(2)))
    rows = [
        stored.row(sample(1, b"not even a picture"), rows="captions", choice=0),
        stored.row(sample(2), rows="captions", choice=0),
    ]
    batch = collate(rows, pad_id=0)
    assert batch.pixels is None
    assert batch.features[:, 0, 0].tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match=f"picture {digest(png(3))[:12]} is not in the feature store"):
        collate([*rows, stored.row(sample(3), rows="captions", choice=0)], pad_id=0)


def test_all_captions_are_counted_once_an_epoch() -> None:
    source = MemorySource([sample(0, captions=3), sample(1, captions=1), sample(2, captions=2)])
    index = RowIndex(source, captions="all")
    assert [index(row, epoch=4) for row in range(len(index))] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (2, 0),
        (2, 1),
    ]


def test_one_caption_an_epoch_changes_with_epoch_and_seed() -> None:
    source = MemorySource([sample(number, captions=5) for number in range(200)])

    def chosen(seed: int, epoch: int) -> list[int]:
        index = RowIndex(source, captions="one", seed=seed)
        return [index(row, epoch)[1] % 5 for row in range(len(index))]

    assert chosen(0, 0) == chosen(0, 0)
    assert chosen(0, 0) != chosen(0, 1) != chosen(1, 1)
    assert all(25 <= chosen(0, 0).count(caption) <= 55 for caption in range(5))


def test_a_pass_gives_prompts_on_the_left_with_their_samples() -> None:
    source = MemorySource([sample(number) for number in range(5)])
    found = list(Pass(source, processor(), rows="questions", batch_size=2, limit=3))
    assert [[each.id for each in samples] for _, samples in found] == [["s0", "s1"], ["s2"]]
    assert found[0][0].targets is None
    assert found[0][0].token_ids[:, -1].tolist() == ids("?") * 2
    whole = Pass(source, processor(), rows="captions", batch_size=2, purpose="training")
    assert len(whole) == 3
    assert [batch.num_supervised for batch, _ in whole] == [4, 4, 2]


def test_a_pass_leaves_bad_samples_out_and_says_so() -> None:
    source = MemorySource([sample(0), sample(1, b"text"), sample(2)])
    found = Pass(source, processor(), rows="captions", batch_size=2)
    assert [[each.id for each in samples] for _, samples in found] == [["s0", "s2"]]
    assert found.report().skipped == 1
    assert "s1.png is no picture" in found.report().named[0]
    worse = MemorySource([sample(0), sample(1, b"text"), sample(2, b"")])
    with pytest.raises(
        DataError, match=r"2 of 3 samples \(samples in memory\) cannot be used, but at most 1"
    ):
        list(Pass(worse, processor(), rows="captions", batch_size=2))
    with pytest.raises(DataError, match="data set is empty"):
        Pass(MemorySource([]), processor(), rows="captions", batch_size=2)
