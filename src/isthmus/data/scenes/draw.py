"""Draw a scene, and the region of each of its things, with soft edges."""

import numpy as np
from PIL import Image, ImageDraw

from isthmus.data.scenes import outlines
from isthmus.data.scenes.scene import Point, Scene, Thing

FINE_SIDE = 512
"""Pictures are drawn 2 to 4 times finer, at most about this many pixels a side, and averaged down."""


def picture(scene: Scene) -> Image.Image:
    """Return the scene as an anti-aliased RGB picture of the canvas's size."""
    times = _times(scene)
    fine = Image.new("RGB", (scene.canvas.width * times, scene.canvas.height * times), scene.background)
    brush = ImageDraw.Draw(fine)
    for thing in scene.things:
        _paint(brush, thing, times, thing.rgb)
    return fine.reduce(times)


def region_masks(scene: Scene) -> np.ndarray:
    """Return which pixels show each thing: bool `[thing, height, width]`, no pixel twice.

    A pixel belongs to the thing that covers most of it, if that is at least half.
    """
    times = _times(scene)
    fine = Image.new("L", (scene.canvas.width * times, scene.canvas.height * times), 0)
    brush = ImageDraw.Draw(fine)
    for number, thing in enumerate(scene.things, start=1):
        _paint(brush, thing, times, number)
    height, width = scene.canvas
    owners = np.asarray(fine).reshape(height, times, width, times)
    numbers = np.arange(1, len(scene.things) + 1)[:, None, None, None, None]
    share = (owners == numbers).mean(axis=(2, 4))
    return (
        (share >= 0.5) & (share == share.max(axis=0)) & (np.cumsum(share == share.max(axis=0), axis=0) == 1)
    )


def _times(scene: Scene) -> int:
    """Return how many times finer than its canvas a scene is drawn."""
    return max(2, min(4, FINE_SIDE // min(scene.canvas)))


def _paint(brush: ImageDraw.ImageDraw, thing: Thing, times: int, fill: tuple[int, int, int] | int) -> None:
    """Paint a thing on a canvas `times` finer than its own."""
    if thing.shape in outlines.ROUND_RADIUS and not thing.outline:
        left, top, right, bottom = (round(edge * times) for edge in thing.box)
        # Pillow counts the last column and row in.
        bounds = (left, top, right - 1, bottom - 1)
        if thing.shape == "circle":
            brush.ellipse(bounds, fill=fill)
        else:
            width = round(thing.radius * times * (outlines.RING_OUTER - outlines.RING_INNER))
            brush.ellipse(bounds, outline=fill, width=width)
        return
    # Pillow names the pixel a corner lies in and drops fractions; these centres round to the nearest pixel.
    centre = Point(thing.centre.x * times - 0.5, thing.centre.y * times - 0.5)
    own = thing.outline or outlines.CORNERS[thing.shape]
    turned = outlines.corners(own, centre, thing.radius * times, thing.angle)
    brush.polygon([(round(corner.x), round(corner.y)) for corner in turned], fill=fill)
