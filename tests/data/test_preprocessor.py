"""Preprocessor files of every form on the hub are read as transformers reads them, and others refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from isthmus.core.sizes import Size
from isthmus.data.images import CLIP_MEAN, CLIP_STD
from isthmus.data.preprocessor import processor_of_folder

COLOURS = {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD), "resample": 3, "do_normalize": True}
SQUARE = {"height": 32, "width": 32}


def written(folder: Path, **values: object) -> str:
    (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS | values))
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        # The form of openai/clip-vit-*: sizes are single numbers.
        (CLIPImageProcessorPil, {"do_center_crop": True, "size": 36, "crop_size": 32}),
        (CLIPImageProcessorPil, {"do_center_crop": True, "size": {"shortest_edge": 36}, "crop_size": SQUARE}),
        (CLIPImageProcessorPil, {"do_center_crop": True, "size": SQUARE, "crop_size": SQUARE}),
        (ViTImageProcessorPil, {"size": 32, "do_center_crop": False, "crop_size": 24}),
        (ViTImageProcessorPil, {"size": SQUARE}),
        (ConvNextImageProcessorPil, {"size": 32, "crop_pct": 0.875}),
        (ConvNextImageProcessorPil, {"size": {"shortest_edge": 384}, "crop_pct": 1.0}),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(53, 91), (90, 41)])
def test_pictures_are_prepared_as_transformers_prepares_them(
    tmp_path: Path, kind: type[CLIPImageProcessorPil], values: dict[str, object], height: int, width: int
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    folder = written(tmp_path, **values)
    theirs = kind.from_dict(COLOURS | values)(image, return_tensors="np")["pixel_values"][0]
    ours = processor_of_folder(folder, resize=None)(image)
    # Measured: 4.8e-7, from the order of scaling and subtracting.
    torch.testing.assert_close(ours, torch.as_tensor(np.asarray(theirs)), atol=2e-6, rtol=0)


def test_a_recipe_may_say_another_way_to_fit(tmp_path: Path) -> None:
    folder = written(tmp_path, do_center_crop=True, size={"height": 40, "width": 40}, crop_size=SQUARE)
    found = processor_of_folder(folder, resize="pad")
    assert (found.size, found.resize) == (Size(32, 32), "pad")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": None}, "names no picture size"),
        ({"size": SQUARE, "resample": 9}, "resamples with filter 9; known are"),
        ({"size": SQUARE, "image_mean": None}, "says image_mean: None; expected three numbers"),
        (
            {"size": SQUARE, "do_normalize": False, "do_resize": False},
            "do_resize is false and do_normalize is",
        ),
        ({"size": SQUARE, "rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        (
            {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": SQUARE},
            "squashes pictures to .* which is not built here; set model.vision.resize",
        ),
    ],
)
def test_what_would_give_other_numbers_is_refused(
    tmp_path: Path, values: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        processor_of_folder(written(tmp_path, **values), resize=None)
