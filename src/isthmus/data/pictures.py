"""From the bytes of a picture file to an 8-bit RGB picture, within stated limits and with errors a person can read."""

import hashlib
import io
import math
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

from isthmus.core.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 80_000_000
MAX_ASPECT = 100
REDUCE_ABOVE = 25_000_000
"""JPEGs with more pixels than this are decoded at half, quarter or eighth size, which their format offers cheaply."""

# The warning is printed once and then forgotten; a picture that large must be refused every time.
warnings.simplefilter("error", Image.DecompressionBombWarning)

_TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    Warning,
    struct.error,
    zlib.error,
)


class BadSample(DataError):
    """One sample cannot be used, for example because its picture is damaged; streams count, name and skip up to 1%."""


def digest(data: bytes) -> str:
    """The SHA-256 of a file's bytes in hexadecimal: the name of a picture in the feature store."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, name: str) -> Image.Image:
    """Decode a picture: first frame, upright (EXIF orientation), 8-bit RGB, transparency flattened on white.

    16-bit greys are scaled to 8 bits, not clipped. At most 64 MiB, 80 million pixels and a ratio of sides of 100:1;
    JPEGs above 25 million pixels are decoded at a reduced size.

    Args:
        data: The whole file.
        name: What messages call it.

    Raises:
        BadSample: The file is empty, too large, damaged, or no picture at all.
    """
    if not data:
        raise BadSample(f"{name} is empty; expected a picture")
    if len(data) > MAX_BYTES:
        raise BadSample(
            f"{name} has {len(data):,} bytes; at most {MAX_BYTES:,} are read, so make the file smaller"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except _TOO_LARGE as error:
        raise BadSample(
            f"{name} has too many pixels; at most {MAX_PIXELS:,} are read, so scale it down"
        ) from error
    except _DAMAGED as error:
        found = _first_words(data)
        raise BadSample(f"{name} is no picture: {found}; expected one of {', '.join(FORMATS)}") from error
    with image:
        _check_size(image, name)
        try:
            _reduce(image)
            image.load()
            return upright_rgb(image, name)
        except BadSample:
            raise
        except (*_TOO_LARGE, *_DAMAGED) as error:
            raise BadSample(
                f"{name} is a damaged or truncated {image.format} file of {len(data):,} bytes; "
                "copy it again or leave it out"
            ) from error


def _first_words(data: bytes) -> str:
    start = data[:40]
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        return f"it begins with the text {start.decode('ascii')!r}"
    return f"its {len(data):,} bytes begin with {start[:8].hex(' ')}"


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise BadSample(f"{name} is {width}x{height} pixels; expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise BadSample(
            f"{name} is {width}x{height} pixels; at most {MAX_PIXELS:,} pixels are read, so scale it down"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadSample(
            f"{name} is {width}x{height} pixels; its longer side may be at most {MAX_ASPECT} times the shorter, "
            "so crop it"
        )


def _reduce(image: Image.Image) -> None:
    if image.format == "JPEG" and image.width * image.height > REDUCE_ABOVE:
        # Draft mode offers powers of two and takes the smallest size that is at least the one asked for.
        factor = 2 ** math.ceil(math.log2(image.width * image.height / REDUCE_ABOVE) / 2)
        image.draft("RGB", (image.width // factor, image.height // factor))


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """The decoded picture, which messages call `name`, turned as its EXIF orientation says, in 8-bit RGB.

    Raises:
        BadSample: The picture holds floating-point numbers.
    """
    return to_rgb(ImageOps.exif_transpose(image), name)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """The picture in 8-bit RGB: transparency on white, 16-bit greys divided by 257, CMYK and palettes converted.

    Raises:
        BadSample: The picture holds floating-point numbers, whose range is not stated.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise BadSample(
            f"{name} holds floating-point numbers; expected 8 or 16 bits a channel, so convert it first"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    wide = grey.astype(np.int64)
    if grey.dtype.itemsize > 2 and wide.max(initial=0) <= 255:
        return wide.clip(0, 255).astype(np.uint8)
    return ((wide.clip(0, 65535) + 128) // 257).astype(np.uint8)
