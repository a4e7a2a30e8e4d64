"""Pictures show what scenes say: colours under masks, boxes around them, soft edges, visible overlaps."""

from dataclasses import replace

import numpy as np
import pytest

from isthmus.core.sizes import Size
from isthmus.data.scenes import Scenes


def test_masks_and_pictures_agree_in_colour_and_box() -> None:
    world = Scenes(image_size=96, aspect=(1 / 3, 3))
    for index in range(60):
        scene = world.scene(index)
        pixels, masks = np.asarray(world.picture(scene), dtype=int), world.region_masks(scene)
        assert masks.shape == (len(scene.things), *scene.canvas)
        assert masks.sum(axis=0).max() == 1
        for thing, mask, box in zip(scene.things, masks, world.boxes(scene), strict=True):
            assert np.abs(np.median(pixels[mask], axis=0) - thing.rgb).max() <= 2
            rows, columns = np.nonzero(mask)
            assert rows.min() >= box.top - 1
            assert rows.max() + 1 <= box.bottom + 1
            assert columns.min() >= box.left - 1
            assert columns.max() + 1 <= box.right + 1
            assert box.left >= 0
            assert box.top >= 0
            assert box.right <= scene.canvas.width
            assert box.bottom <= scene.canvas.height
        far = ~masks.any(axis=0)
        assert np.abs(np.median(pixels[far], axis=0) - scene.background).max() <= 1


def test_areas_match_the_closed_form() -> None:
    area = {
        "circle": np.pi,
        "ring": np.pi * (1.1**2 - 0.58**2),
        "square": 1.8**2,
        "triangle": 1.3**2 * 3**1.5 / 4,
    }
    world, checked = Scenes(image_size=256), set()
    for index in range(400):
        scene = world.scene(index)
        if len(scene.things) == 1 and scene.things[0].shape in area:
            thing = scene.things[0]
            found = world.region_masks(scene)[0].sum() / thing.radius**2
            assert found == pytest.approx(area[thing.shape], rel=0.06)
            tight = world.region_masks(scene)[0].nonzero()
            assert thing.box.top == pytest.approx(tight[0].min(), abs=2)
            assert thing.box.right == pytest.approx(tight[1].max() + 1, abs=2)
            checked.add(thing.shape)
    assert checked == set(area)


def test_things_overlap_sometimes_but_always_stay_visible() -> None:
    world, hidden = Scenes(), []
    for index in range(250):
        scene = world.scene(index)
        for number, mask in enumerate(world.region_masks(scene)):
            alone = world.region_masks(replace(scene, things=(scene.things[number],)))[0]
            hidden.append(1 - (mask & alone).sum() / alone.sum())
    assert max(hidden) < 0.4
    assert 0.01 < np.mean(np.array(hidden) > 0.02) < 0.3


def test_edges_are_soft() -> None:
    world = Scenes()
    scene = next(world.scene(index) for index in range(50) if len(world.scene(index).things) == 1)
    colours = {tuple(pixel) for pixel in np.asarray(world.picture(scene)).reshape(-1, 3)}
    assert len(colours) > 8


def test_sizes_and_aspects_stay_in_range() -> None:
    world = Scenes(image_size=48, aspect=(1 / 3, 3))
    canvases = [world.scene(index).canvas for index in range(200)]
    ratios = [canvas.width / canvas.height for canvas in canvases]
    assert min(map(min, canvases)) == max(map(min, canvases)) == 48
    assert 1 / 3 <= min(ratios) < 0.4
    assert 2.6 < max(ratios) <= 3
    assert Scenes().scene(0).canvas == Size(64, 64)
    assert all(world.picture(world.scene(index)).size == canvases[index][::-1] for index in range(20))
