"""Decoding within limits, and preparing pictures like transformers' own processor."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from isthmus.core.sizes import Size
from isthmus.data.images import CLIP_MEAN, CLIP_STD, BadSample, ImageProcessor, decode, digest


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def processor(resize: str, height: int = 8, width: int = 8, **options: object) -> ImageProcessor:
    return ImageProcessor(size=Size(height, width), resize=resize, mean=CLIP_MEAN, std=CLIP_STD, **options)


def test_png_comes_back_as_it_was() -> None:
    image = noise(5, 7)
    assert decode(encoded(image), "a.png").tobytes() == image.tobytes()


def test_transparency_is_flattened_on_white() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert list(decode(encoded(image), "a.png").tobytes()) == [10, 20, 30, 255, 255, 255]
    half = decode(encoded(Image.new("LA", (1, 1), (0, 0))), "b.png")
    assert half.getpixel((0, 0)) == (255, 255, 255)


def test_palette_with_a_transparent_colour_is_flattened_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, transparency=1), "a.png").tobytes() == bytes([255, 0, 0, 255, 255, 255])


def test_16_bit_greys_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    grey = np.asarray(decode(encoded(Image.fromarray(values)), "a.png"))
    assert grey[0, :, 0].tolist() == [0, 1, 128, 255]
    assert decode(encoded(Image.fromarray(values), "TIFF"), "a.tif").getpixel((2, 0)) == (128, 128, 128)


def test_cmyk_becomes_rgb() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = decode(data, "a.jpg").getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(noise(4, 9), "JPEG", exif=exif), "a.jpg").size == (4, 9)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    red, blue = Image.new("RGB", (6, 6), (255, 0, 0)), Image.new("RGB", (6, 6), (0, 0, 255))
    data = encoded(red, format, save_all=True, append_images=[blue], **options)
    assert decode(data, "a").getpixel((3, 3)) == (255, 0, 0)


def test_one_pixel_is_a_picture() -> None:
    tiny = decode(encoded(Image.new("RGB", (1, 1), (9, 9, 9))), "a.png")
    for resize in ("squash", "crop", "pad"):
        assert processor(resize)(tiny).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"this is no picture\n", "begins with the text 'this is no picture"),
        (b"\x00\x01\x02", "is no picture"),
        (encoded(noise(64, 64), "JPEG")[:700], "truncated JPEG"),
        (encoded(noise(64, 64))[:700], "truncated PNG"),
        (encoded(Image.new("1", (20_000, 150))), "20000x150"),
        (encoded(Image.new("1", (20_000, 5_000))), "too many pixels"),
        (encoded(Image.new("1", (9_000, 9_000))), "9000x9000"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(BadSample, match=words) as caught:
        decode(data, "dir/a.jpg")
    message = str(caught.value)
    assert message.startswith("dir/a.jpg ") and "<" not in message and "\n" not in message
    assert caught.value.exit_code == 3


def test_a_wide_jpeg_is_decoded_at_a_reduced_size() -> None:
    wide = decode(encoded(Image.new("L", (20_000, 2_000), 77), "JPEG"), "wide.jpg")
    assert wide.size == (10_000, 1_000) and wide.getpixel((5, 5)) == (77, 77, 77)


def test_digest_is_sha256() -> None:
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("height", "width", "short"), [(53, 91, 32), (91, 53, 41), (48, 48, 24), (40, 45, 40), (20, 61, 25)]
)
def test_crop_equals_the_published_processor(height: int, width: int, short: int) -> None:
    image = noise(height, width)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": short}, crop_size={"height": 32, "width": 32})
    expected = torch.as_tensor(np.asarray(theirs(image, return_tensors="np")["pixel_values"][0]))
    # Measured: 4.8e-7, from the order of scaling and subtracting.
    torch.testing.assert_close(
        processor("crop", 32, 32, shortest_edge=short)(image), expected, atol=2e-6, rtol=0
    )


def test_squash_scales_both_sides() -> None:
    image = noise(30, 10)
    expected = np.asarray(image.resize((6, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    expected = (expected - np.array(CLIP_MEAN)[:, None, None]) / np.array(CLIP_STD)[:, None, None]
    got = processor("squash", 8, 6, resample="bilinear")(image)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_pad_keeps_the_whole_picture_between_bars_of_the_mean_colour() -> None:
    fitted = processor("pad").fit(Image.new("RGB", (8, 4), (255, 0, 0)))
    rows = np.asarray(fitted)
    assert (rows[[0, 1, 6, 7]] == (122, 116, 104)).all()
    assert (rows[2:6] == (255, 0, 0)).all()


def test_pad_of_a_long_picture_stays_small() -> None:
    assert processor("pad").fit(Image.new("RGB", (20_000, 400))).size == (8, 8)


def test_none_refuses_another_size() -> None:
    assert torch.equal(processor("none")(noise(8, 8)), processor("squash")(noise(8, 8)))
    with pytest.raises(BadSample, match=r"b\.jpg is 9x8 pixels.*8x8 is expected"):
        processor("none")(noise(8, 9), "b.jpg")


def test_blank_is_the_mean_colour_and_nearly_zero() -> None:
    blank = processor("none").blank()
    assert blank.shape == (3, 8, 8)
    # Rounding the mean down to 8 bits costs at most 1/255/std = 0.015.
    assert blank.abs().max() < 0.016 and blank.std(dim=(1, 2)).max() < 1e-6
