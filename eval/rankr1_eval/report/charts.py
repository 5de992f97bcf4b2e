"""Charts as numbers: where points, whiskers, ticks and names of a drawing stand, in the units of its view box.

Knows means and intervals; nothing of HTML and colours.

Where the supports stood before and stand after: flows between ranks, a matrix of bands of ranks, a summary by row.

Knows ranks; nothing of HTML and colours, except that a line needs a place and a width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rankr1_eval.report.wording import BOUNDS, DASH, View, extent, kind, measure_name, percent, row_name
from rankr1_eval.types import Estimate
from rankr1_rag.explain.text import start

ROW = 17
"""Height of a rank in the picture."""
MOVES_WIDTH = 260
_SINGLE = 20
"""Ranks up to here have a place of their own; the others share bands."""
_BANDS = (30, 50, 100, 200, 500, 1000)
_MATRIX = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 1_000_000))


@dataclass(frozen=True, slots=True)
class Flow:
    """`count` supports that went from one place to another; `turn` is 1 up, -1 down, 0 neither."""

    before: str
    after: str
    count: int
    turn: int
    path: str
    width: float


@dataclass(frozen=True, slots=True)
class Moves:
    """Every support that is among the candidates of both orders.

    `labels` are the places from the top, `cut` how many of them the reader reads; `matrix` rows are bands of
    first-stage ranks, columns bands of ranks after. Of the supports that are `missing` there, the row retrieved
    `found` between its hops, and ranked `read` of them among the first k.
    """

    labels: list[str]
    flows: list[Flow]
    cut: int
    bands: list[str]
    matrix: list[list[int]]
    supports: int
    missing: int
    up: int
    down: int
    into: int
    out: int
    found: int = 0
    read: int = 0

    @property
    def height(self) -> int:
        """Of the picture."""
        return ROW * len(self.labels)

    @property
    def most(self) -> int:
        """The greatest number in the matrix, at least 1."""
        return max([1, *(max(line) for line in self.matrix)])


def pairs(view: View, row: str) -> tuple[list[tuple[int, int]], list[int | None]]:
    """(rank before, rank after) of each support that both orders hold; rank after of each that one of them lacks."""
    found, missing = [], []
    for id in view.rows["none"].orders.keys() & view.rows[row].orders.keys() & view.questions.keys():
        question = view.questions[id]
        for before, after in zip(view.ranks("none", question), view.ranks(row, question), strict=True):
            if before is None or after is None:
                missing.append(after if before is None else None)
            else:
                found.append((before, after))
    return sorted(found), missing


def moves(view: View, row: str) -> Moves | None:
    """From "none" to the row; None where nothing can be compared."""
    if row == "none" or "none" not in view.rows or row not in view.rows:
        return None
    found, missing = pairs(view, row)
    if not found:
        return None
    labels = _labels(max(max(pair) for pair in found))
    counts = Counter((_place(before, labels), _place(after, labels)) for before, after in found)
    most = max(counts.values())
    bands = [(low, high) for low, high in _MATRIX if low <= max(max(pair) for pair in found)]
    return Moves(
        labels=[name for _, name in labels],
        flows=[_flow(labels, *pair, count, most) for pair, count in sorted(counts.items(), key=lambda one: one[1])],
        cut=min(view.k, len(labels)),
        bands=[_band(low, high) for low, high in bands],
        matrix=[[sum(b0 <= b <= b1 and a0 <= a <= a1 for b, a in found) for a0, a1 in bands] for b0, b1 in bands],
        supports=len(found),
        missing=len(missing),
        up=sum(after < before for before, after in found),
        down=sum(after > before for before, after in found),
        into=sum(after <= view.k < before for before, after in found),
        out=sum(before <= view.k < after for before, after in found),
        found=sum(after is not None for after in missing),
        read=sum(after is not None and after <= view.k for after in missing),
    )


def _labels(deepest: int) -> list[tuple[int, str]]:
    """The last rank of each place with its name."""
    single = [(rank, str(rank)) for rank in range(1, min(deepest, _SINGLE) + 1)]
    ends = [_SINGLE, *_BANDS, math.inf]
    bands = [
        (int(min(high, 10**9)), f"{low + 1}{DASH}{high}" if high < math.inf else f"> {low}")
        for low, high in pairwise(ends)
        if low < deepest
    ]
    return single + (bands if deepest > _SINGLE else [])


def _place(rank: int, labels: list[tuple[int, str]]) -> int:
    return next(place for place, (last, _) in enumerate(labels) if rank <= last)


def _flow(labels: list[tuple[int, str]], before: int, after: int, count: int, most: int) -> Flow:
    left, right, middle = ROW * before + ROW // 2, ROW * after + ROW // 2, MOVES_WIDTH // 2
    path = f"M0 {left}C{middle} {left} {middle} {right} {WIDTH} {right}"
    turn = (before > after) - (before < after)
    return Flow(
        labels[before][1], labels[after][1], count, turn, path, round(1.25 + 8.75 * (count - 1) / max(most, 12), 2)
    )


def _band(low: int, high: int) -> str:
    if high > 1000:
        return f"> {low - 1}"
    return str(low) if low == high else f"{low}{DASH}{high}"


WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 34, 128, 14, 40
_LINE = 15
"""The least distance between names."""
_BARS, _BAR = 136, 30
"""Where bars begin, and how far apart they are."""
_NAME = 19
"""The longest name beside a curve, in characters."""


@dataclass(frozen=True, slots=True)
class Point:
    """A mean with its interval: `label` tells it in words."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class Series:
    """One row: its points, the line through them, its name, whole and cut to fit, and where that stands."""

    name: str
    short: str
    tone: str
    points: list[Point]
    path: str
    name_x: float
    name_y: float

    @property
    def last(self) -> Point:
        """The point that the name belongs to."""
        return self.points[-1]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing: ticks are (place, text); `told` is the whole of it in words."""

    title: str
    told: str
    x_name: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    series: list[Series]


@dataclass(frozen=True, slots=True)
class Bar:
    """One row's F1 with its interval, and its exact match where `exact` is not None; `x` are ends from the left."""

    name: str
    tone: str
    y: float
    x: float
    low: float
    high: float
    exact: float | None
    value: str


@dataclass(frozen=True, slots=True)
class Bars:
    """The answers of each row where only one k was read; the scale is 0 to `end` percent."""

    title: str
    told: str
    ticks: list[tuple[float, str]]
    bars: list[Bar]
    height: int


def scaled(value: float, low: float, high: float, start: float, end: float) -> float:
    """A value between low and high as a place between start and end."""
    return round(start + (end - start) * (value - low) / (high - low or 1.0), 2)


def curve(view: View, family: str, title: str, among: Sequence[int] | None = None) -> Chart | None:
    """A family of measures against k, one line a row; None where there are fewer than two k."""
    measures = {k: name for k, name in view.family(family).items() if among is None or k in among}
    rows = {row: [view.estimate(row, name) for name in measures.values()] for row in view.scores.systems}
    rows = {row: found for row, found in rows.items() if all(found)}
    if len(measures) < 2 or not rows:
        return None
    low, high = extent(one for found in rows.values() for one in found)
    places = [scaled(i, -0.25, len(measures) - 0.75, LEFT, WIDTH - RIGHT) for i in range(len(measures))]
    drawn = []
    for number, (row, found) in enumerate(rows.items()):
        shift = 5.0 * (number - (len(rows) - 1) / 2)
        marks = [
            _point(x + shift, one, low, high, f"at {k}")
            for x, one, k in zip(places, found, measures, strict=True)
            if one
        ]
        drawn.append((row, marks))
    return Chart(
        title,
        _told(title, drawn),
        "k, passages from the top",
        [(x, str(k)) for x, k in zip(places, measures, strict=True)],
        _ticks(low, high),
        _named(view, drawn, WIDTH - RIGHT + 14),
    )


def against_cost(view: View, family: str) -> Chart | None:
    """A measure at the report's k against what a question's reranking costs; None where no row cost anything."""
    measure = view.at_k(family)
    unit, costs = _costs(view)
    rows = {row: one for row in costs if (one := view.estimate(row, measure))}
    if measure is None or not any(costs[row] for row in rows):
        return None
    low, high = extent(rows.values())
    steps = _steps(max(costs[row] for row in rows))
    drawn = []
    for row, one in rows.items():
        x = scaled(costs[row], 0, steps[-1], LEFT + 14, WIDTH - RIGHT)
        drawn.append((row, [_point(x, one, low, high, f"at {costs[row]:,.0f} {unit}")]))
    title = f"{measure_name(measure)} against cost"
    ticks = [(scaled(step, 0, steps[-1], LEFT + 14, WIDTH - RIGHT), _short(step)) for step in steps]
    return Chart(title, _told(title, drawn), f"{unit} a question", ticks, _ticks(low, high), _named(view, drawn, None))


def answers(view: View) -> Bars | None:
    """F1 and exact match at the report's k as bars; None where nothing was read."""
    f1, exact = view.at_k("F1"), view.at_k("EM")
    rows = {row: one for row in view.scores.systems if (one := view.estimate(row, f1))}
    if f1 is None or not rows:
        return None
    _, end = extent(rows.values(), 0.2)
    bars, told = [], []
    for place, (row, one) in enumerate(rows.items()):
        x, low, high = (scaled(value, 0, end, _BARS, WIDTH - 44) for value in (one.mean, one.low, one.high))
        match = view.estimate(row, exact)
        mark = scaled(match.mean, 0, end, _BARS, WIDTH - 44) if match else None
        bars.append(Bar(row_name(row), view.tone(row), 26 + _BAR * place, x, low, high, mark, percent(one.mean)))
        exactly = f", exact match {percent(match.mean)}" if match else ""
        told.append(f"{row_name(row)} F1 {percent(one.mean)} ({percent(one.low)} to {percent(one.high)}){exactly}")
    title = f"F1 and exact match with {f1.partition('@')[2]} passages read"
    ticks = [(scaled(i / 5, 0, end, _BARS, WIDTH - 44), f"{20 * i}") for i in range(round(end * 5) + 1)]
    return Bars(title, f"{title}, percent. " + "; ".join(told) + ".", ticks, bars, 26 + _BAR * len(bars) + 16)


def _costs(view: View) -> tuple[str, dict[str, float]]:
    """The unit that tells the rows apart, and the cost of each row that orders the candidates and knows no supports."""
    rows = [row for row in view.scores.systems if view.rows[row].orders and kind(row) not in (*BOUNDS, "random")]
    cost = {row: view.scores.systems[row].cost for row in rows}
    tokens = {row: cost[row].get("prompt_tokens", 0.0) + cost[row].get("completion_tokens", 0.0) for row in rows}
    if any(tokens.values()):
        return "tokens read and written", tokens
    return "comparisons", {row: cost[row].get("comparisons", 0.0) for row in rows}


def _point(x: float, one: Estimate, low: float, high: float, where: str) -> Point:
    y, bottom, top = (scaled(v, low, high, HEIGHT - BOTTOM, TOP) for v in (one.mean, one.low, one.high))
    return Point(
        round(x, 2), y, bottom, top, f"{percent(one.mean)} ({percent(one.low)} to {percent(one.high)}) {where}"
    )


def _named(view: View, drawn: Sequence[tuple[str, list[Point]]], column: float | None) -> list[Series]:
    """The series with names in a column, or beside their points, moved apart where they would overlap."""
    heights = _apart([points[-1].y for _, points in drawn]) if column is not None else _beside(drawn)
    return [
        Series(
            row_name(row),
            start(row_name(row), _NAME),
            view.tone(row),
            points,
            "M" + "L".join(f"{point.x} {point.y}" for point in points),
            column if column is not None else points[-1].x + 9,
            round(height, 2),
        )
        for (row, points), height in zip(drawn, heights, strict=True)
    ]


def _beside(drawn: Sequence[tuple[str, list[Point]]]) -> list[float]:
    """Heights of names beside single points: only those that stand near each other are moved apart."""
    heights = [points[-1].y for _, points in drawn]
    columns: list[list[int]] = []
    for index in sorted(range(len(drawn)), key=lambda i: drawn[i][1][-1].x):
        if columns and drawn[index][1][-1].x - drawn[columns[-1][0]][1][-1].x < RIGHT:
            columns[-1].append(index)
        else:
            columns.append([index])
    for column in columns:
        for index, height in zip(column, _apart([heights[index] for index in column]), strict=True):
            heights[index] = height
    return heights


def _apart(wanted: Sequence[float]) -> list[float]:
    """Places as near to the wanted ones as a line's distance between them allows, within the drawing."""
    placed = list(wanted)
    order = sorted(range(len(placed)), key=lambda index: placed[index])
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _LINE)
    limit = float(HEIGHT - BOTTOM)
    for index in reversed(order):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - _LINE
    return placed


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = 0.1 if high - low < 0.65 else 0.2
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [
        (scaled(i * step, low, high, HEIGHT - BOTTOM, TOP), f"{100 * i * step:.0f}") for i in range(first, last + 1)
    ]


def _steps(greatest: float) -> list[float]:
    """Round steps from 0 to the first that is not below."""
    size = 10.0 ** math.floor(math.log10(greatest))
    step = next(part * size for part in (0.25, 0.5, 1.0, 2.0, 2.5) if part * size * 5 >= greatest)
    return [index * step for index in range(math.ceil(greatest / step - 1e-9) + 1)]


def _short(number: float) -> str:
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def _told(title: str, drawn: Iterable[tuple[str, Sequence[Point]]]) -> str:
    parts = (f"{row_name(row)} " + ", ".join(point.label for point in points) for row, points in drawn)
    return f"{title}, percent, with 95 % intervals. " + "; ".join(parts) + "."
