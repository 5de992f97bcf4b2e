"""The trade-off as one picture: nDCG against each cost, a row of panels for each judge.

All rows have the same scale, each shifted to where its judge leads. Knows a study and matplotlib's figures. Must not
know how the study was made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rankr1_eval.simulation.judges import described
from rankr1_eval.simulation.study import COSTS, IDEAL, NONE, Line, Study
from rankr1_eval.simulation.ways import way_named
from rankr1_rag.selection import ALGORITHMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

INK = "#333333"
TICKS = [tick * 10**power for power in range(5) for tick in (1, 1.5, 2, 3, 5, 7)]
ROW, HEAD, FOOT = 2.1, 1.4, 0.4
"""Inches: a row of panels, what stands above them, what stands below."""

LEFT = 0.06

STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.edgecolor": "#AAAAAA",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": "#777777",
    "ytick.color": "#777777",
    "svg.fonttype": "none",
    "svg.hashsalt": "rankr1-eval",
}


def picture(study: Study, kind: Literal["png", "svg"]) -> bytes:
    """The picture as a file of this kind; the same study is the same bytes."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure(study).savefig(out, format=kind, metadata={"Date": None, "Creator": None} if kind == "svg" else None)
    return _few_colours(out) if kind == "png" else out.getvalue()


def _few_colours(png: io.BytesIO) -> bytes:
    """With a palette: a third of the bytes, and no eye sees it."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(png) as whole:
        whole.convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE).save(out, format="png", optimize=True)
    return out.getvalue()


def figure(study: Study) -> Figure:
    """The figure, drawn, for whoever wants to show it elsewhere."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judges = list(dict.fromkeys(line.judge for line in study.lines))
    height = HEAD + ROW * len(judges) + FOOT
    drawn = Figure(figsize=(11, height), dpi=110)
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(len(judges), len(COSTS), sharex="col", sharey="row", squeeze=False)
    drawn.subplots_adjust(LEFT, FOOT / height, 0.985, 1 - HEAD / height, wspace=0.07, hspace=0.42)
    _head(drawn, study, height)
    span = _span(study)
    for row, judge in zip(grid, judges, strict=True):
        lines = study.under(judge)
        for axes, cost in zip(row, COSTS, strict=True):
            draw(axes, study, lines, cost)
            _axes(axes, cost)
        _shift(row[0], study, lines, span)
        row[0].set_ylabel(f"nDCG@{study.setting.k}")
        row[0].set_title(judge, loc="left", fontsize=10, fontweight="bold", pad=8)
        after = (6.9 * len(judge) + 6, 8.5)
        row[0].annotate(
            described(judge), (0, 1), after, xycoords="axes fraction", textcoords="offset points", fontsize=9
        )
    for row, judge in zip(grid, judges, strict=True):
        for axes, cost in zip(row, COSTS, strict=True):
            name_points(axes, study.under(judge), cost)
    return drawn


def _head(drawn: Figure, study: Study, height: float) -> None:
    setting = study.setting
    title = f"What a selection algorithm finds for what it costs: top {setting.k} of {setting.depth}"
    drawn.text(LEFT, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", va="center")
    texts = (
        f"nDCG@{setting.k}, mean of {study.queries} queries played {setting.repeats} times each, sets of up to "
        f"{setting.size}. A row for each simulated judge, all on the same scale. Up and to the left is better.",
        f"■ answered by whole orders, ● by the best of a set, ○ with votes. Bars: 95 % interval of the difference from "
        f"{study.reference}, queries paired.",
        "Broad lines: no other way with this kind of answers is both cheaper and as good.",
    )
    for place, text in enumerate(texts):
        drawn.text(LEFT, 1 - (0.55 + 0.18 * place) / height, text, fontsize=8.5, va="center", color="#666666")


def _axes(axes: Axes, cost: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.margins(x=0.12)
    axes.text(0.02, 0.03, f"{cost.replace('_', ' ')} →", transform=axes.transAxes, fontsize=8, color="#888888")
    axes.tick_params(labelbottom=True, length=3)
    axes.grid(color="#F2F2F2", zorder=-1)
    axes.set_axisbelow(True)


def _span(study: Study) -> float:
    """How much of the nDCG axis every row shows: what the widest needs."""
    judges = {line.judge for line in study.lines}
    ranges = [[line.scores["ndcg"].mean for line in study.under(judge)] for judge in judges]
    return 1.3 * max(0.1, *(max(values) - min(values) for values in ranges))


def _shift(axes: Axes, study: Study, lines: list[Line], span: float) -> None:
    """Show a row's points in the middle; name the bounds, or say in which direction they are."""
    values = [line.scores["ndcg"].mean for line in lines]
    bottom = (max(values) + min(values) - span) / 2
    top = bottom + span
    axes.set_ylim(bottom, top)
    for name in (NONE, IDEAL):
        bound = study.bounds[name]["ndcg"].mean
        arrow = " ↓" if bound < bottom else " ↑" if bound > top else ""
        axes.annotate(
            f"{name} {bound:.3f}{arrow}",
            (0.99, min(max(bound, bottom), top)),
            xycoords=("axes fraction", "data"),
            xytext=(0, -2 if bound > top - 0.1 * span else 2),
            textcoords="offset points",
            ha="right",
            va="top" if bound > top - 0.1 * span else "bottom",
            fontsize=7.5,
            color="#888888",
        )


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
