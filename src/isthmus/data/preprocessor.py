"""How a pretrained encoder's own folder says that pictures are prepared."""

from typing import Any

from PIL import Image
from transformers.image_processing_base import ImageProcessingMixin

from isthmus.core.sizes import Size
from isthmus.data.images import ImageProcessor, Resample, Resize

_FILTERS: dict[int, Resample] = {
    int(Image.Resampling.NEAREST): "nearest",
    int(Image.Resampling.BILINEAR): "bilinear",
    int(Image.Resampling.BICUBIC): "bicubic",
    int(Image.Resampling.LANCZOS): "lanczos",
}


def processor_of_folder(name: str, *, resize: Resize | None, local_only: bool = True) -> ImageProcessor:
    """Read `preprocessor_config.json` of a folder or hub name.

    Args:
        name: The folder or name.
        resize: Replaces how the file makes pictures fit; `none` also switches its centre crop off.
        local_only: Never ask the network.

    Raises:
        OSError: There is no such file.
        ValueError: The file names no size or no filter that is known here.
    """
    values, _ = ImageProcessingMixin.get_image_processor_dict(name, local_files_only=local_only)
    size, crop = values.get("size") or {}, values.get("crop_size") or {}
    cuts = bool(values.get("do_center_crop")) and bool(crop)
    target = crop if cuts else size
    side = target.get("height", target.get("shortest_edge"))
    if side is None:
        raise ValueError(
            f"the preprocessor file names no picture size; found size {size} and crop_size {crop}"
        )
    resample = int(values.get("resample", Image.Resampling.BICUBIC))
    if resample not in _FILTERS:
        known = ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
        raise ValueError(f"the preprocessor file resamples with filter {resample}; known are {known}")
    return ImageProcessor(
        size=Size(int(side), int(target.get("width", side))),
        resize=resize or ("crop" if cuts else "squash"),
        mean=_three(values, "image_mean"),
        std=_three(values, "image_std"),
        resample=_FILTERS[resample],
        shortest_edge=int(size["shortest_edge"]) if cuts and "shortest_edge" in size else None,
    )


def _three(values: dict[str, Any], name: str) -> tuple[float, float, float]:
    red, green, blue = values[name]
    return float(red), float(green), float(blue)
