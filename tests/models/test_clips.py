"""Clips in a batch: frames go through the encoder one by one, a clip is one medium, and filled-up frames change nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from isthmus.core.batch import Batch, VisualLayout, exchange_pictures
from isthmus.models.media import media_tokens, padded_frames, spliced_tokens
from isthmus.models.vision_language_model import VisionLanguageModel
from isthmus.nn.transformer import TransformerShape
from isthmus.parts.connectors.linear import LinearConnector
from isthmus.parts.connectors.mapping_network import FrameTransformer
from isthmus.parts.connectors.perceiver_resampler import PerceiverResampler

from .test_cross_attention import CHUNK_END, IMAGE, WIDTH, joined

ROWS = [[1, 5, IMAGE, 7, 8, CHUNK_END, IMAGE, 9, 4], [1, IMAGE, 3, 6]]
FRAMES = (3, 1, 2)
"""Of the first row's clip, its single picture, and the second row's clip."""


def model_with_frames(most: int = 4) -> VisionLanguageModel:
    model = joined()
    connector = model.attention_connector
    assert isinstance(connector, PerceiverResampler)
    torch.manual_seed(5)
    connector.frame_positions = nn.Parameter(torch.randn(most, 16))
    return model


def frames_of(*counts: int) -> Tensor:
    return torch.randn(sum(counts), 3, 16, 16, generator=torch.Generator().manual_seed(4))


def batch_of(
    rows: list[list[int]], pixels: Tensor, frames: tuple[int, ...], *, layout_frames: bool = True
) -> Batch:
    longest = max(map(len, rows))
    return Batch(
        sample_ids=tuple(map(str, range(len(rows)))),
        pixels=pixels,
        token_ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        attention_mask=torch.tensor([[at < len(row) for at in range(longest)] for row in rows]),
        layout=VisualLayout(
            images_per_row=tuple(row.count(IMAGE) for row in rows),
            tokens_per_image=(1,) * len(frames),
            frames_per_image=frames if layout_frames else (),
        ),
    )


def test_clips_of_different_lengths_give_what_each_row_gives_alone() -> None:
    """Largest difference measured: 2.7e-6."""
    model, pixels = model_with_frames(), frames_of(*FRAMES)
    together = model.logits(batch_of(ROWS, pixels, FRAMES))
    first = model.logits(batch_of(ROWS[:1], pixels[:4], FRAMES[:2]))
    second = model.logits(batch_of(ROWS[1:], pixels[4:], FRAMES[2:]))
    assert (together[0] - first[0]).abs().max() < 1e-5
    assert (together[1, :4] - second[0]).abs().max() < 1e-5


def test_a_text_sees_the_last_clip_before_it() -> None:
    model, pixels = model_with_frames(), frames_of(*FRAMES)
    before = model.logits(batch_of(ROWS, pixels, FRAMES))
    for frame, first_changed in ((0, 2), (2, 2), (3, 6)):
        other = pixels.clone()
        other[frame] += 1
        gap = (model.logits(batch_of(ROWS, other, FRAMES)) - before).abs().amax(dim=-1)
        assert torch.equal(gap[0, :first_changed], torch.zeros(first_changed))
        assert gap[0, first_changed] > 1e-4
        assert gap[1, :4].max() == 0


def test_the_order_of_frames_is_seen() -> None:
    model, pixels = model_with_frames(), frames_of(3)
    row = [[1, IMAGE, 3, 6]]
    forwards, backwards = (model.logits(batch_of(row, one, (3,))) for one in (pixels, pixels.flip(0)))
    assert (forwards - backwards).abs().max() > 1e-3


def test_a_clip_of_one_frame_is_a_picture() -> None:
    model, pixels = model_with_frames(), frames_of(1, 1)
    rows = [[1, IMAGE, 3, 6], [1, 5, IMAGE, 4]]
    clips, pictures = (
        model.logits(batch_of(rows, pixels, (1, 1), layout_frames=one)) for one in (True, False)
    )
    assert torch.equal(clips, pictures)


def test_frames_are_sorted_into_their_clips() -> None:
    patches = torch.arange(12.0).reshape(6, 2, 1)
    videos, mask = padded_frames(patches, FRAMES)
    given = iter(patches)
    for clip, count in enumerate(FRAMES):
        assert mask[clip].tolist() == [True] * count + [False] * (3 - count)
        for frame in range(3):
            expected = next(given) if frame < count else torch.zeros(2, 1)
            assert torch.equal(videos[clip, frame], expected)
    with pytest.raises(ValueError, match="has 6 frames, but its layout 5"):
        padded_frames(patches, (3, 2))


def spliced_batch(*clips: tuple[int, ...]) -> Batch:
    """A row for each group of clips of so many frames, two prefix tokens a frame; the same pixels whatever the groups."""
    frames = tuple(count for row in clips for count in row)
    rows = [[1, *(one for count in row for one in (*[IMAGE] * (2 * count), 5)), 7] for row in clips]
    longest = max(map(len, rows))
    return Batch(
        sample_ids=tuple(map(str, range(len(rows)))),
        pixels=frames_of(*frames),
        token_ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        attention_mask=torch.tensor([[at < len(row) for at in range(longest)] for row in rows]),
        layout=VisualLayout(
            images_per_row=tuple(map(len, clips)),
            tokens_per_image=tuple(2 * count for count in frames),
            frames_per_image=frames,
        ),
    )


def model_of_both_ways() -> VisionLanguageModel:
    model = joined(with_splice=True)
    torch.manual_seed(5)
    assert model.attention_connector is not None
    model.attention_connector.frame_positions = nn.Parameter(torch.randn(4, 16))
    return model


def test_each_frame_has_a_prefix_of_its_own() -> None:
    """Largest differences measured: none for the prefixes, 9.5e-7 for logits beside a longer row."""
    model, batch = model_of_both_ways(), spliced_batch((1, 3), (2,))
    prefixes = model.visual_tokens(batch)
    assert prefixes is not None
    assert model.connector is not None
    assert batch.pixels is not None
    alone = [model.connector(model.vision(frame[None]))[0] for frame in batch.pixels]
    assert (prefixes - torch.cat(alone)).abs().max() < 1e-6
    together = model.logits(batch)
    first = model.logits(replace(spliced_batch((1, 3)), pixels=batch.pixels[:4]))
    second = model.logits(replace(spliced_batch((2,)), pixels=batch.pixels[4:]))
    assert (together[0] - first[0]).abs().max() < 1e-5
    assert (together[1, : second.shape[1]] - second[0]).abs().max() < 1e-5
    wrong = replace(batch.layout, tokens_per_image=(2, 6, 2))
    with pytest.raises(
        ValueError, match=r"planned \[2, 6\] visual tokens an image, but .* gives \[2, 4, 6\]"
    ):
        model.visual_tokens(replace(batch, layout=wrong))


def test_frames_that_read_each_other_read_those_of_their_clip_alone() -> None:
    """Largest difference measured: 2.4e-7."""
    torch.manual_seed(0)
    shape = TransformerShape(width=8, num_layers=1, num_heads=2)
    connector = FrameTransformer(vision_width=8, language_width=8, shape=shape)
    patches = torch.randn(6, 4, 8)
    tokens, counts = spliced_tokens(connector, patches, FRAMES)
    assert counts == FRAMES
    clips = [connector.of_frames(clip[None])[0] for clip in patches.split(FRAMES)]
    assert (tokens - torch.cat(clips)).abs().max() < 1e-6
    assert (tokens[0] - connector(patches[:1])[0]).abs().max() > 1e-3
    pictures, counts = spliced_tokens(connector, patches, ())
    assert counts == (1,) * 6
    assert torch.equal(pictures, connector(patches).flatten(0, 1))


def test_too_many_frames_and_connectors_of_single_pictures_are_refused() -> None:
    model = model_with_frames(most=2)
    with pytest.raises(
        ValueError, match="a video has 3 frames, but this connector has learned positions for 2"
    ):
        model.logits(batch_of([[1, IMAGE, 3, 6]], frames_of(3), (3,)))
    with pytest.raises(ValueError, match="a LinearConnector takes single pictures"):
        media_tokens(LinearConnector(vision_width=16, language_width=WIDTH), torch.zeros(3, 4, 16), (3,))


def test_clips_are_exchanged_whole() -> None:
    batch = batch_of(ROWS, frames_of(*FRAMES), FRAMES)
    assert batch.num_images == 3
    other = exchange_pictures(replace(batch, image_ids=("a", "b", "c")), (2, 0, 1))
    assert other.layout is not None
    assert other.layout.frames_per_image == (2, 3, 1)
    assert other.image_ids == ("c", "a", "b")
    assert other.pixels is not None
    assert batch.pixels is not None
    assert torch.equal(other.pixels, batch.pixels[[4, 5, 0, 1, 2, 3]])
