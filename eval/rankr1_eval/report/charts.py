"""Charts as drawing data: measures against k and against cost, bars of answers, moves of the supports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rankr1_eval.report.wording import BOUNDS, DASH, View, extent, kind, measure_name, percent, scaled, system_name
from rankr1_eval.types import Estimate
from rankr1_rag.explain.slopes import SlopeChart, count_moves

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 34, 128, 14, 40
BARS, BAR = 136, 30
"""The left end of the bars, and the distance between them."""
_NAME_HEIGHT = 15
"""The least distance between names."""
_RANKS = 20
"""Ranks up to here have a line each in the chart of moves; the others share bands up to these."""
_BANDS = (30, 50, 100, 200, 500, 1000)
_MATRIX = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 1_000_000))


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A mean with its interval; `label` has both in words."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """One system: its points, and the place of its name."""

    name: str
    tone: str
    points: list[ChartPoint]
    name_x: float
    name_y: float


@dataclass(frozen=True, slots=True)
class PointChart:
    """A drawing; ticks are (place, text)."""

    title: str
    x_name: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    series: list[ChartSeries]

    @property
    def description(self) -> str:
        """The whole of it in words."""
        parts = (f"{one.name} " + ", ".join(point.label for point in one.points) for one in self.series)
        return f"{self.title}, percent, with 95 % intervals. " + "; ".join(parts) + "."


def curve(view: View, family: str, title: str, among: Sequence[int] | None = None) -> PointChart | None:
    """A family of measures against k, one line a system; None if there are fewer than two k."""
    measures = {k: name for k, name in view.family(family).items() if among is None or k in among}
    found = {name: [view.estimate(name, one) for one in measures.values()] for name in view.scores.systems}
    means = {name: [one for one in ones if one] for name, ones in found.items() if all(ones)}
    if len(measures) < 2 or not means:
        return None
    low, high = extent(one for ones in means.values() for one in ones)
    places = [scaled(n, -0.25, len(measures) - 0.75, LEFT, WIDTH - RIGHT) for n in range(len(measures))]
    drawn = {}
    for number, (name, ones) in enumerate(means.items()):
        shift = 5.0 * (number - (len(means) - 1) / 2)
        drawn[name] = [
            chart_point(x + shift, one, low, high, f"at {k}") for x, one, k in zip(places, ones, measures, strict=True)
        ]
    heights = spread_names([marks[-1].y for marks in drawn.values()])
    series = [
        ChartSeries(system_name(name), view.tone(name), marks, WIDTH - RIGHT + 14, height)
        for (name, marks), height in zip(drawn.items(), heights, strict=True)
    ]
    ticks = [(x, str(k)) for x, k in zip(places, measures, strict=True)]
    return PointChart(title, "k, passages from the top", ticks, percent_ticks(low, high), series)


def against_cost(view: View, family: str) -> PointChart | None:
    """A measure at the report's k against the cost of reranking a question; None if no system cost anything.

    The cost is in tokens, or in comparisons if no tokens were counted. Bounds and random order are left out.
    """
    measure = view.at_k(family)
    cost = {
        name: scored.cost
        for name, scored in view.scores.systems.items()
        if view.systems[name].orders and kind(name) not in (*BOUNDS, "random")
    }
    unit, fields = "tokens read and written", ["prompt_tokens", "completion_tokens"]
    if not any(one.get(field) for one in cost.values() for field in fields):
        unit, fields = "comparisons", ["comparisons"]
    costs = {name: sum(one.get(field, 0.0) for field in fields) for name, one in cost.items()}
    means = {name: one for name in cost if (one := view.estimate(name, measure))}
    if measure is None or not any(costs[name] for name in means):
        return None
    low, high = extent(means.values())
    steps = round_steps(max(costs[name] for name in means))

    def place(cost: float) -> float:
        return scaled(cost, 0, steps[-1], LEFT + 14, WIDTH - RIGHT)

    marks = {
        name: chart_point(place(costs[name]), one, low, high, f"at {costs[name]:,.0f} {unit}")
        for name, one in means.items()
    }
    heights: dict[str, float] = {}
    columns: list[list[str]] = []  # names of points that are near each other are moved apart
    for name in sorted(marks, key=lambda name: marks[name].x):
        if not columns or marks[name].x - marks[columns[-1][0]].x >= RIGHT:
            columns.append([])
        columns[-1].append(name)
    for column in columns:
        heights.update(zip(column, spread_names([marks[name].y for name in column]), strict=True))
    series = [
        ChartSeries(system_name(name), view.tone(name), [mark], mark.x + 9, heights[name])
        for name, mark in marks.items()
    ]
    ticks = [(place(step), f"{step / 1000:g}k" if step >= 1000 else f"{step:g}") for step in steps]
    title = f"{measure_name(measure)} against cost"
    return PointChart(title, f"{unit} a question", ticks, percent_ticks(low, high), series)


def chart_point(x: float, one: Estimate, low: float, high: float, where: str) -> ChartPoint:
    """A mean on the scale from low to high."""
    y, bottom, top = (scaled(value, low, high, HEIGHT - BOTTOM, TOP) for value in (one.mean, one.low, one.high))
    return ChartPoint(
        round(x, 2), y, bottom, top, f"{percent(one.mean)} ({percent(one.low)} to {percent(one.high)}) {where}"
    )


def spread_names(wanted: Sequence[float]) -> list[float]:
    """Heights near the wanted ones, a line apart from each other and within the drawing."""
    placed = list(wanted)
    order = sorted(range(len(placed)), key=lambda index: placed[index])
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _NAME_HEIGHT)
    limit = float(HEIGHT - BOTTOM)
    for index in reversed(order):
        placed[index] = round(min(placed[index], limit), 2)
        limit = placed[index] - _NAME_HEIGHT
    return placed


def percent_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Every 10 % of a scale, or every 20 % if it is wide."""
    step = 0.1 if high - low < 0.65 else 0.2
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(scaled(n * step, low, high, HEIGHT - BOTTOM, TOP), f"{100 * n * step:.0f}") for n in numbers]


def round_steps(greatest: float) -> list[float]:
    """Round steps from 0 to the first that is not below the greatest."""
    size = 10.0 ** math.floor(math.log10(greatest))
    step = next(part * size for part in (0.25, 0.5, 1.0, 2.0, 2.5) if part * size * 5 >= greatest)
    return [index * step for index in range(math.ceil(greatest / step - 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class AnswerBar:
    """One system's F1 and exact match at the height `y`."""

    name: str
    tone: str
    y: float
    f1: Estimate
    exact: Estimate | None


@dataclass(frozen=True, slots=True)
class AnswerBars:
    """Answers of each system if only one k was read, on a scale from 0 to `end`."""

    title: str
    end: float
    bars: list[AnswerBar]

    def place(self, value: float) -> float:
        """A share as a distance from the left."""
        return scaled(value, 0, self.end, BARS, WIDTH - 44)

    @property
    def description(self) -> str:
        """The whole of it in words."""
        parts = (
            f"{bar.name} F1 {percent(bar.f1.mean)} ({percent(bar.f1.low)} to {percent(bar.f1.high)})"
            + (f", exact match {percent(bar.exact.mean)}" if bar.exact else "")
            for bar in self.bars
        )
        return f"{self.title}, percent. " + "; ".join(parts) + "."


def answer_bars(view: View) -> AnswerBars | None:
    """F1 and exact match at the report's k; None if nothing was read."""
    measure, exact = view.at_k("F1"), view.at_k("EM")
    means = {name: one for name in view.scores.systems if (one := view.estimate(name, measure))}
    if measure is None or not means:
        return None
    bars = [
        AnswerBar(system_name(name), view.tone(name), 26 + BAR * n, one, view.estimate(name, exact))
        for n, (name, one) in enumerate(means.items())
    ]
    title = f"F1 and exact match with {measure.partition('@')[2]} passages read"
    return AnswerBars(title, extent(means.values(), 0.2)[1], bars)


@dataclass(frozen=True, slots=True)
class SupportMoves:
    """The supports in both orders, the first stage's and a system's: how many moved up, down, into the first k, out.

    `matrix` counts them by bands of ranks before (lines) and after (columns). `missing` supports are in one order at
    most; the system `retrieved` some of these between its hops, and ranked `read` of them within the first k.
    """

    supports: int
    up: int
    down: int
    into: int
    out: int
    bands: list[str]
    matrix: list[list[int]]
    chart: SlopeChart
    missing: int
    retrieved: int
    read: int


def support_moves(view: View, system: str) -> SupportMoves | None:
    """From no rerank to the system; None if nothing can be compared."""
    if system == "none" or not {"none", system} <= view.systems.keys():
        return None
    ranks: list[tuple[int, int]] = []
    missing: list[int | None] = []
    for id in view.systems["none"].orders.keys() & view.systems[system].orders.keys() & view.questions.keys():
        question = view.questions[id]
        for before, after in zip(view.ranks("none", question), view.ranks(system, question), strict=True):
            if before is None or after is None:
                missing.append(after if before is None else None)
            else:
                ranks.append((before, after))
    if not ranks:
        return None
    deepest = max(map(max, ranks))
    ends = [*range(1, min(deepest, _RANKS) + 1)]
    labels = [str(rank) for rank in ends]
    for low, high in pairwise([_RANKS, *_BANDS, 10**9]):
        if low < deepest:
            ends.append(high)
            labels.append(band_name(low + 1, high))
    counts = Counter((line_of(before, ends), line_of(after, ends)) for before, after in sorted(ranks))
    bands = [(low, high) for low, high in _MATRIX if low <= deepest]
    highs = [high for _, high in bands]
    cells = Counter((line_of(before, highs), line_of(after, highs)) for before, after in ranks)
    retrieved = [after for after in missing if after is not None]
    return SupportMoves(
        len(ranks),
        sum(after < before for before, after in ranks),
        sum(after > before for before, after in ranks),
        sum(after <= view.k < before for before, after in ranks),
        sum(before <= view.k < after for before, after in ranks),
        [band_name(*band) for band in bands],
        [[cells[line, column] for column in range(len(bands))] for line in range(len(bands))],
        count_moves(labels, counts, "support", min(view.k, len(labels))),
        len(missing),
        len(retrieved),
        sum(after <= view.k for after in retrieved),
    )


def line_of(rank: int, ends: Iterable[int]) -> int:
    """The first line whose end is not below the rank."""
    return next(line for line, end in enumerate(ends) if rank <= end)


def band_name(low: int, high: int) -> str:
    """The ranks from low to high, or all from low."""
    return f"> {low - 1}" if high > 1000 else str(low) if low == high else f"{low}{DASH}{high}"
