"""Where to write a name beside each of some points, so that names cover neither each other nor the points.

Knows rectangles. Must not know what is drawn, or with what.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with its sides along the axes."""

    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: Box) -> float:
        """The area both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of it nearest to this one."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @property
    def area(self) -> float:
        """How large it is."""
        return (self.right - self.left) * (self.top - self.bottom)


Point = tuple[float, float]
SWEEPS = 8
"""How often every name may move, the others standing still."""


def places(
    points: Sequence[Point], sizes: Sequence[Point], frame: Box, mark: float, taken: Sequence[Box] = ()
) -> list[Box]:
    """A box of its size (width, height) for the name of each point, inside the frame where it fits there.

    Points are squares of side 2 * `mark`; `taken` is not to be covered either. Names start beside their points and
    move, one after another, to where they cover least, nearest first; the same points always get the same places.
    """
    marks = [around(x, y, mark) for x, y in points]
    choices = [list(_around(point, size, mark)) for point, size in zip(points, sizes, strict=True)]
    chosen = [boxes[0] for boxes in choices]
    for _ in range(SWEEPS):
        before = list(chosen)
        for i, boxes in enumerate(choices):
            others = [*taken, *marks, *chosen[:i], *chosen[i + 1 :]]
            chosen[i] = min(boxes, key=lambda box: _cost(box, points[i], others, frame))
        if chosen == before:
            break
    return chosen


def around(x: float, y: float, mark: float) -> Box:
    """The square of side 2 * `mark` about a point."""
    return Box(x - mark, y - mark, x + mark, y + mark)


def _around(point: Point, size: Point, mark: float) -> Iterator[Box]:
    """Boxes around a point, nearest first, to the right of it before elsewhere."""
    (x, y), (width, height) = point, size
    for ring in range(12):
        gap = mark * 1.4 + ring * height * 0.5
        for turn in range(16):
            angle = math.tau * turn / 16
            middle_x = x + math.cos(angle) * (gap + width / 2)
            middle_y = y + math.sin(angle) * (gap + height / 2)
            yield Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)


def _cost(box: Box, point: Point, others: Sequence[Box], frame: Box) -> float:
    """What a place covers and how far it leads outside, far dearer than how far it is from the point."""
    covered = sum(box.shared(other) for other in others) + 3 * (box.area - box.shared(frame))
    return 100 * covered / box.area + math.dist(box.nearest(*point), point) / (box.top - box.bottom)
