"""Pictures inside the page: decoded, shrunk, written again and embedded; nothing is loaded from elsewhere."""

import base64
import io
from dataclasses import dataclass
from typing import final

from PIL import Image, ImageOps

from isthmus.core.errors import DataError
from isthmus.reports.examples import Picture

SMALL_PX = 160
"""Pictures up to this size are drawn ones: kept as they are in PNG, and enlarged with crisp pixels."""
MAX_PIXELS = 64_000_000
"""Encoded pictures larger than this are refused before they are decoded."""


@final
@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture as a `data:` address with its size in pixels; `crisp` ones are enlarged without smoothing."""

    uri: str
    width: int
    height: int
    crisp: bool
    name: str


def embed(picture: Picture, max_px: int = 320) -> Embedded:
    """Return a picture ready for an `<img>`, its longer side at most `max_px`.

    Bytes are always decoded and written again, so that nothing but pixels gets into the page.

    Raises:
        DataError: The bytes are not a picture that can be decoded, or a far too large one.
    """
    image = _opened(picture)
    image = _on_white(ImageOps.exif_transpose(image))
    crisp = max(image.size) <= SMALL_PX
    image.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if crisp:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=80, optimize=True)
    kind = "png" if crisp else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Embedded(uri=uri, width=image.width, height=image.height, crisp=crisp, name=picture.name)


def _opened(picture: Picture) -> Image.Image:
    """Return the picture decoded; the caller's own image is not changed."""
    if isinstance(picture.image, Image.Image):
        return picture.image.copy()
    try:
        image = Image.open(io.BytesIO(picture.image))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"picture {picture.name} for the report has {image.width}x{image.height} pixels; expected at "
                f"most {MAX_PIXELS:,} in all; shrink it first"
            )
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"picture {picture.name} for the report cannot be decoded ({error}); expected an encoded "
            "still picture such as PNG or JPEG"
        ) from error
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """Return the picture in RGB, laid on white where it is transparent."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")
