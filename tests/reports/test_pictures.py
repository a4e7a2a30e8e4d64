"""Pictures in the page: small ones exact, large ones small, bad ones refused."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.core.errors import DataError
from isthmus.reports.examples import Picture
from isthmus.reports.pictures import embed


def decoded(uri: str) -> Image.Image:
    """Decode a data address again."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8))


def test_a_small_picture_keeps_every_pixel(noise: Image.Image) -> None:
    small = noise.crop((0, 0, 64, 48))
    for image in (small, encoded(small, "PNG")):
        shown = embed(Picture(image=image, name="a"))
        assert (shown.width, shown.height, shown.crisp) == (64, 48, True)
        assert np.array_equal(np.asarray(decoded(shown.uri)), np.asarray(small))


def test_a_large_picture_is_shrunk_and_the_original_left_alone(noise: Image.Image) -> None:
    shown = embed(Picture(image=noise, name="a"), max_px=320)
    assert (shown.width, shown.height, shown.crisp) == (320, 213, False)
    assert shown.uri.startswith("data:image/jpeg;base64,")
    assert noise.size == (600, 400)


def test_rotation_alpha_and_other_modes(noise: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert embed(Picture(image=encoded(noise, "JPEG", exif=exif), name="a")).height == 320
    clear = embed(Picture(image=Image.new("RGBA", (4, 4), (255, 0, 0, 0)), name="a"))
    assert decoded(clear.uri).getpixel((0, 0)) == (255, 255, 255)
    for mode in ("L", "CMYK", "P", "1"):
        assert decoded(embed(Picture(image=noise.convert(mode), name="a")).uri).mode == "RGB"


def test_nothing_but_pixels_gets_into_the_page(noise: Image.Image) -> None:
    secret = b"secret words"
    data = encoded(noise.crop((0, 0, 9, 9)), "JPEG", comment=secret) + secret
    assert secret not in base64.b64decode(embed(Picture(image=data, name="a")).uri.partition("base64,")[2])


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken", b"<svg/>"])
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"picture rows/7\.png for the report cannot be decoded"):
        embed(Picture(image=data, name="rows/7.png"))


def test_a_truncated_picture_is_refused(noise: Image.Image) -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        embed(Picture(image=encoded(noise, "JPEG")[:5000], name="a"))


def test_a_far_too_large_picture_is_refused() -> None:
    with pytest.raises(DataError, match="9000x9000 pixels"):
        embed(Picture(image=encoded(Image.new("1", (9000, 9000)), "PNG"), name="a"))
