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


_WARPED_FROM = 384
"""ConvNeXt squashes pictures that are to be this large and cuts nothing off, as in transformers."""


def processor_of_folder(name: str, *, resize: Resize | None, local_only: bool = True) -> ImageProcessor:
    """Read `preprocessor_config.json` of a folder or hub name.

    Sizes may be the single numbers that old files hold, which are the sides of a square or, before a cut, the shorter
    side; ConvNeXt's `crop_pct` says how much of the shorter side a cut keeps.

    Args:
        name: The folder or name.
        resize: Replaces how the file makes pictures fit; `none` also switches its centre crop off.
        local_only: Never ask the network.

    Raises:
        OSError: There is no such file.
        ValueError: The file names no size or no filter that is known here, or prepares pictures in a way that is not
            built here.
    """
    values, _ = ImageProcessingMixin.get_image_processor_dict(name, local_files_only=local_only)
    _check_steps(values)
    size, cut = _sides(values.get("size")), _sides(values.get("crop_size"))
    cuts, shortest = bool(values.get("do_center_crop")) and bool(cut), size.get("shortest_edge")
    if isinstance(values.get("crop_pct"), float) and shortest is not None:
        cut, cuts = {"height": shortest, "width": shortest}, shortest < _WARPED_FROM
        shortest = int(shortest / values["crop_pct"])
    target = cut if cuts else size
    side = target.get("height", target.get("shortest_edge"))
    if side is None:
        raise ValueError(
            f"the preprocessor file names no picture size; found size {values.get('size')} and "
            f"crop_size {values.get('crop_size')}"
        )
    return ImageProcessor(
        size=Size(side, target.get("width", side)),
        resize=resize or _fit(size, target, cuts=cuts),
        mean=_three(values, "image_mean"),
        std=_three(values, "image_std"),
        resample=_filter(values),
        shortest_edge=shortest if cuts else None,
    )


def _check_steps(values: dict[str, Any]) -> None:
    off = [step for step in ("do_resize", "do_rescale", "do_normalize") if values.get(step) is False]
    factor = values.get("rescale_factor", 1 / 255)
    wrong = [f"{step} is false" for step in off]
    if not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-6:
        wrong.append(f"rescale_factor is {factor}")
    if wrong:
        raise ValueError(
            f"the preprocessor file says that {' and '.join(wrong)}; pictures are always scaled, divided by 255 and "
            "normalised here: write the file for that (mean 0 and deviation 1 leave the numbers as they are)"
        )


def _sides(found: object) -> dict[str, int]:
    """A size as its file says it: one number is the shorter side."""
    if isinstance(found, int | float):
        return {"shortest_edge": int(found)}
    if not isinstance(found, dict):
        return {}
    return {str(side): int(length) for side, length in found.items() if isinstance(length, int | float)}


def _fit(size: dict[str, int], target: dict[str, int], *, cuts: bool) -> Resize:
    if not cuts:
        return "squash"
    if "height" not in size:
        return "crop"
    if size != target:
        raise ValueError(
            f"the preprocessor file squashes pictures to {size} and then cuts {target} out of them, which is not built "
            "here; set model.vision.resize"
        )
    return "squash"


def _filter(values: dict[str, Any]) -> Resample:
    resample = int(values.get("resample", Image.Resampling.BICUBIC))
    if resample not in _FILTERS:
        known = ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
        raise ValueError(f"the preprocessor file resamples with filter {resample}; known are {known}")
    return _FILTERS[resample]


def _three(values: dict[str, Any], name: str) -> tuple[float, float, float]:
    found = values.get(name)
    if not isinstance(found, list) or len(found) != 3:
        raise ValueError(f"the preprocessor file says {name}: {found}; expected three numbers, one a channel")
    red, green, blue = found
    return float(red), float(green), float(blue)
