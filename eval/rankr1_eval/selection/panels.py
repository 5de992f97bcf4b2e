"""One panel of the picture: the ways under one judge, nDCG against one cost, and their names beside the points.

Knows matplotlib's axes. Must not know the figure they are part of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rankr1_eval.selection.labels import Box, places
from rankr1_eval.selection.study import IDEAL, NONE, Line, Study
from rankr1_eval.selection.ways import way_named
from rankr1_rag.selection import ALGORITHMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

COLOURS = ("#0072B2", "#7A7A7A", "#D55E00", "#00835F", "#B0508A", "#8A6D00", "#2B8CBE")
"""For the algorithms in their order, then for a ballot: after Okabe and Ito, told apart by the colour-blind too, and
dark enough to write with."""

FAINT = "#D0D0D0"
MARK = 4.6
"""Half a point's width, in pixels."""


def draw(axes: Axes, study: Study, lines: Sequence[Line], cost: str) -> None:
    """The points with their intervals, the bounds, and a frontier for either kind of answers."""
    for name in (NONE, IDEAL):
        axes.axhline(study.bounds[name]["ndcg"].mean, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for listwise, colour in ((False, "#DDDDDD"), (True, "#ECD3E2")):
        if points := [_point(line, cost) for line in lines if way_named(line.way).listwise is listwise]:
            xs, ys = zip(*frontier(points), strict=True)
            axes.step(xs, ys, where="post", color=colour, linewidth=3, solid_capstyle="round", zorder=1)
    for line in lines:
        _draw_line(axes, line, cost)


def _draw_line(axes: Axes, line: Line, cost: str) -> None:
    x, y = _point(line, cost)
    colour = _colour(line.way)
    axes.plot([x, x], _interval(line), color=colour, alpha=0.35, linewidth=1.6, solid_capstyle="butt", zorder=2)
    axes.plot(
        [x],
        [y],
        marker="s" if way_named(line.way).listwise else "o",
        markersize=5.5,
        markeredgewidth=1.4,
        color=colour,
        markerfacecolor="white" if ":" in line.way else colour,
        zorder=3,
    )


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of the (cost, nDCG) points than which none is both cheaper and as good, cheapest first."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def name_points(axes: Axes, lines: Sequence[Line], cost: str) -> None:
    """Write the name of each way beside its point, where it covers least; the axes must have their final limits."""
    to_pixels, to_data = axes.transData.transform, axes.transData.inverted().transform
    taken = [_box(text.get_window_extent()) for text in axes.texts]
    taken += [_box(drawn.get_window_extent()) for drawn in axes.lines if drawn.get_drawstyle() == "default"]
    texts = [_text(axes, line.way) for line in lines]
    points = [tuple(map(float, to_pixels(_point(line, cost)))) for line in lines]
    extents = [text.get_window_extent() for text in texts]
    boxes = places(
        [(x, y) for x, y in points],
        [(extent.width, extent.height) for extent in extents],
        _box(axes.get_window_extent()),
        MARK,
        taken,
    )
    for text, box, (x, y) in zip(texts, boxes, points, strict=True):
        text.set_position(tuple(to_data(((box.left + box.right) / 2, (box.bottom + box.top) / 2))))
        end = box.nearest(x, y)
        if math.dist(end, (x, y)) > 2.5 * MARK:
            ends = to_data([(x, y), end])
            axes.plot(ends[:, 0], ends[:, 1], color=text.get_color(), linewidth=0.7, alpha=0.7, zorder=2)


def _box(extent: Bbox) -> Box:
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)


def _text(axes: Axes, way: str) -> Text:
    """The name, not yet in its place."""
    return axes.text(1, 0, way, color=_colour(way), fontsize=8, ha="center", va="center", zorder=4)


def _interval(line: Line) -> tuple[float, float]:
    """What the way would score, were the reference's score sure."""
    mean, apart = line.scores["ndcg"].mean, line.difference
    return (mean, mean) if apart is None else (mean + apart.low - apart.mean, mean + apart.high - apart.mean)


def _point(line: Line, cost: str) -> tuple[float, float]:
    return max(1.0, line.scores[cost].mean), line.scores["ndcg"].mean


def _colour(way: str) -> str:
    algorithm = way.partition(":")[0]
    known = [*ALGORITHMS, "ballot"]
    return COLOURS[known.index(algorithm) % len(COLOURS)]
