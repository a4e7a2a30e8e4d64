"""The outline of each shape, in units of a thing's radius around its centre."""

import math

from isthmus.data.scenes.dice import Dice
from isthmus.data.scenes.scene import Box, Point

RING_OUTER, RING_INNER = 1.1, 0.58
REACH = 1.3
"""No outline strays farther than this from the centre, whatever the angle."""


def _spokes(radii: tuple[float, ...]) -> tuple[Point, ...]:
    """Return corners at equal angles from straight up, clockwise, at these distances from the centre."""
    turn = 2 * math.pi / len(radii)
    return tuple(Point(r * math.sin(k * turn), -r * math.cos(k * turn)) for k, r in enumerate(radii))


def _cross(arm: float, half: float) -> tuple[Point, ...]:
    """Return the corners of an upright cross with arms this long and twice `half` wide."""
    quarter = (Point(-half, -arm), Point(half, -arm), Point(half, -half))
    corners: list[Point] = []
    for _ in range(4):
        corners += quarter
        quarter = tuple(Point(-corner.y, corner.x) for corner in quarter)
    return tuple(corners)


CORNERS = {
    "square": (Point(-0.9, -0.9), Point(0.9, -0.9), Point(0.9, 0.9), Point(-0.9, 0.9)),
    "triangle": _spokes((1.3, 1.3, 1.3)),
    "star": _spokes((1.3, 0.55) * 5),
    "cross": _cross(1.1, 0.36),
}
"""Corners of the shapes that have any; circles and rings are round."""

ROUND_RADIUS = {"circle": 1.0, "ring": RING_OUTER}
LUMP_CORNERS = 32
LUMP_RADIUS = 0.85
"""Root mean square of a lump's radii, about that of the named shapes."""


def lump(dice: Dice) -> tuple[Point, ...]:
    """Return the corners of a smooth lump without a name: no two alike, none of them a circle or any other shape."""
    waves = [(2, 0.3), (3, 0.25), (4, 0.12), (5, 0.12)]
    drawn = [(turns, most * dice.between(0.6, 1), dice.between(0, 2 * math.pi)) for turns, most in waves]
    angles = [2 * math.pi * k / LUMP_CORNERS for k in range(LUMP_CORNERS)]
    radii = [1 + sum(high * math.cos(turns * a + start) for turns, high, start in drawn) for a in angles]
    scale = LUMP_RADIUS / math.sqrt(sum(radius**2 for radius in radii) / LUMP_CORNERS)
    reach = [min(radius * scale, REACH) for radius in radii]
    return tuple(Point(r * math.sin(a), -r * math.cos(a)) for r, a in zip(reach, angles, strict=True))


def corners(outline: tuple[Point, ...], centre: Point, radius: float, angle: float) -> list[Point]:
    """Return an outline's corners on the canvas in pixels, turned clockwise by `angle` degrees."""
    cosine, sine = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
    return [Point(centre.x + x * cosine - y * sine, centre.y + x * sine + y * cosine) for x, y in outline]


def box(shape: str, centre: Point, radius: float, angle: float) -> Box:
    """Return the box around a shape in pixels."""
    if shape in ROUND_RADIUS:
        reach = radius * ROUND_RADIUS[shape]
        return Box(centre.x - reach, centre.y - reach, centre.x + reach, centre.y + reach)
    return around(corners(CORNERS[shape], centre, radius, angle))


def around(points: list[Point]) -> Box:
    """Return the box around some points."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    return Box(min(xs), min(ys), max(xs), max(ys))
