"""Random views: what they show, and that they are a pure function of run, stage, epoch and place."""

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.data.controls import MemoryImage
from isthmus.data.views import Augmentation, View, ViewedImage, view_of


def image() -> MemoryImage:
    columns, rows = np.meshgrid(np.arange(40), np.arange(20))
    return MemoryImage(
        image=Image.fromarray(np.stack([columns, rows, rows * 0], axis=2).astype(np.uint8)), name="it"
    )


def seen(view: View) -> np.ndarray:
    return np.asarray(ViewedImage(image(), view, name="it").picture())


def test_a_view_is_a_part_of_the_picture() -> None:
    part = seen(View(side=0.5, left=1.0, top=0.5, mirrored=False))
    assert part.shape == (10, 20, 3)
    assert part[0, :, 0].tolist() == list(range(20, 40))
    assert part[:, 0, 1].tolist() == list(range(5, 15))
    mirrored = seen(View(side=0.5, left=1.0, top=0.5, mirrored=True))
    assert np.array_equal(mirrored, part[:, ::-1])
    assert np.array_equal(
        seen(View(side=1.0, left=0.3, top=0.9, mirrored=False)), np.asarray(image().picture())
    )


def test_areas_are_spread_evenly_and_half_are_mirrored() -> None:
    generator = torch.Generator().manual_seed(0)
    views = [view_of(Augmentation(crop=0.5, flip=True), generator) for _ in range(2000)]
    areas = np.array([view.side**2 for view in views])
    assert areas.min() >= 0.5
    assert areas.max() <= 1.0
    assert np.quantile(areas, [0.25, 0.5, 0.75]) == pytest.approx([0.625, 0.75, 0.875], abs=0.02)
    assert np.mean([view.mirrored for view in views]) == pytest.approx(0.5, abs=0.05)
    plain = view_of(Augmentation(), generator)
    assert (plain.side, plain.mirrored) == (1.0, False)


def test_a_view_has_a_name_of_its_own() -> None:
    one = ViewedImage(image(), View(side=0.9, left=0.0, top=0.0, mirrored=False), name="it")
    other = ViewedImage(image(), View(side=0.9, left=0.1, top=0.0, mirrored=False), name="it")
    assert len({image().digest(), one.digest(), other.digest()}) == 3
