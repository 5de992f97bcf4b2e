"""The tables of a report as values, for page and Markdown alike: rows by measures, groups of questions, costs.

Knows scores and how numbers are written; nothing of HTML or Markdown.

Two runs, or rows of one, side by side as one HTML file of the same kind as a run's report.

Knows pairs of means and their differences; nothing of models or folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rankr1_eval.compare import Pair, Paired
from rankr1_eval.report.charts import scaled
from rankr1_eval.report.page import rendered
from rankr1_eval.report.wording import (
    BOUNDS,
    DASH,
    FLOORS,
    View,
    amount,
    extent,
    finite,
    interval,
    kind,
    measure_name,
    p_value,
    percent,
    points,
    row_name,
    row_note,
    short,
    sides,
    sure,
)
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.explain.text import counted, start
from rankr1_rag.io.files import FilePath, writing

WIDTH = 220
_INTERVAL_EDGE = 5


@dataclass(frozen=True, slots=True)
class PairedLine:
    """One measure of a row, of all questions or of a group; `at`, `low` and `high` are places of the difference."""

    measure: str
    group: str
    first: str
    second: str
    change: str
    ends: str
    p: str
    turn: int
    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Block:
    """A row with its measures, and what its figures stand beside each other for."""

    name: str
    sides: tuple[str, str]
    note: str
    n: int
    lines: list[PairedLine]


def versus(found: Paired) -> str:
    """The whole page as text."""
    reach = max(max(abs(pair.difference.low), abs(pair.difference.high)) for pair in found.pairs) or 0.01
    blocks = [
        Block(
            row_name(row),
            sides(row, members[0].against, found.first.name, found.second.name),
            row_note(row),
            members[0].n,
            [_line(pair, reach) for pair in members],
        )
        for row, group in groupby(sorted(found.pairs, key=_reference), key=lambda pair: pair.system)
        if (members := list(group))
    ]
    return rendered(
        "versus.html.j2",
        first=found.first.name,
        second=found.second.name,
        alone=found.first.path == found.second.path,
        headline=headline(found),
        notes=found.notes,
        blocks=blocks,
        WIDTH=WIDTH,
        reach=points(reach).lstrip("+"),
    )


def write_versus(found: Paired, path: FilePath) -> None:
    """Write the page: whole or, where something fails, not at all."""
    content = versus(found)
    with writing(path) as out:
        out.write(content)


def headline(found: Paired) -> str:
    """The difference that matters first, no more than its interval bears, and how many others stand out."""
    pair = _leading(found.pairs)
    change = pair.difference
    size = short(points(abs(change.mean)).lstrip("+"))
    compared = f"{size} points {'more' if change.mean > 0 else 'fewer'} than" if size != "0" else "as much as"
    verdict = "" if sure(change) or size == "0" else f", which {counted(pair.n, 'question')} cannot tell from chance"
    moved = sum(sure(one.difference) != 0 for one in found.pairs)
    first, second = (start(one.name, 40) for one in (found.first, found.second))
    if pair.system == pair.against:
        second, first = f" in {second}", f"in {first}"
    else:
        first, second = sides(pair.system, pair.against, first, second)[0], ""
    return (
        f"{row_name(pair.system)}: {measure_name(pair.measure)} is {percent(pair.second)} %{second}, "
        f"{compared} {first}{verdict} ({interval(change)}). "
        f"Of {counted(len(found.pairs), 'difference')}, {moved} {'stands' if moved == 1 else 'stand'} out."
    )


def _leading(pairs: Sequence[Pair]) -> Pair:
    """Support recall or F1 of the first row that reranks, else the first of all."""
    own = [pair for pair in pairs if pair.system.startswith("rank-r1")] or list(pairs)
    wanted = [pair for name in ("R@5", "F1@5") for pair in own if pair.measure == name]
    return (wanted or own)[0]


def _reference(pair: Pair) -> bool:
    """Whether its row makes no claim; those stand last."""
    return kind(pair.system) in ("none", *BOUNDS, *FLOORS)


def _line(pair: Pair, reach: float) -> PairedLine:
    change = pair.difference
    at, low, high = (
        scaled(value, -reach, reach, _INTERVAL_EDGE, WIDTH - _INTERVAL_EDGE)
        for value in (change.mean, change.low, change.high)
    )
    return PairedLine(
        measure_name(pair.measure),
        f"{pair.group}, {counted(pair.n, 'question')}" if pair.group else "",
        percent(pair.first),
        percent(pair.second),
        points(change.mean),
        interval(change),
        p_value(change.p),
        sure(change),
        at,
        low,
        high,
    )


PLOT = 116
"""Width of a cell's plot; its ends are the ends of the column's scale."""
_EDGE = 4
_UNPARSED, _FORCED, _EMPTY = 0.1, 0.8, 0.1
"""Shares from which on a figure is an alarm."""

COSTS = {
    "comparisons": "comparisons",
    "rounds": "rounds",
    "passages_read": "passages read",
    "retrieved": "retrieved between hops",
    "prompt_tokens": "prompt tokens",
    "cached_tokens": "of them cached",
    "completion_tokens": "completion tokens",
    "reasoning_tokens": "of them thought",
    "unparsed": "unparsed",
    "forced": "forced",
    "seconds": "seconds",
    "reader_prompt_tokens": "reader prompt tokens",
    "reader_completion_tokens": "reader completion tokens",
    "reader_seconds": "reader seconds",
    "reader_empty": "reader gave nothing",
}
"""What is told of a row's cost, by its name in `SystemScores.cost`."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A mean and its interval as places in a cell; `reference` is where no rerank has its mean."""

    at: float
    low: float
    high: float
    reference: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One mean: `turn` is 1 where it is surely above no rerank, -1 where surely below."""

    value: str = DASH
    interval: str = ""
    change: str = ""
    p: str = ""
    turn: int = 0
    best: bool = False
    plot: Plot | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A measure with the scale of its plots."""

    measure: str
    name: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class TableLine:
    """A row, or a group of questions, with a cell for each column."""

    name: str
    note: str
    tone: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and lines."""

    columns: list[Column]
    lines: list[TableLine]


@dataclass(frozen=True, slots=True)
class Group:
    """The questions of one type, or of one number of hops: a line for each row."""

    value: str
    n: int
    lines: list[TableLine]


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups of one kind, on common scales."""

    kind: str
    columns: list[Column]
    groups: list[Group]


@dataclass(frozen=True, slots=True)
class CostLine:
    """What a row cost: (figure, whether it is an alarm) for each column."""

    name: str
    tone: str
    figures: list[tuple[str, bool]]


def scores_table(view: View, measures: Sequence[str]) -> Table:
    """Every row by these measures."""
    scales = {name: extent(view.estimate(row, name) for row in view.scores.systems) for name in measures}
    lines = [
        TableLine(
            row_name(row), row_note(row), view.tone(row), [_cell(view, row, one, scales[one]) for one in measures]
        )
        for row in view.scores.systems
    ]
    return Table(_columns(scales), [line for line in lines if any(cell.plot for cell in line.cells)])


def groups(view: View) -> list[Groups]:
    """By type and by hops, for no rerank, the row that the report is about and others of its kind.

    A single group tells nothing.
    """
    measures = [name for name in (view.at_k("R"), view.at_k("All"), view.at_k("F1")) if name is not None]
    rows = [row for row in ("none", view.main, *view.rivals) if row is not None and row in view.scores.systems]
    found = []
    for name, values in view.scores.groups.items():
        if len(values) < 2 or not measures or not rows:
            continue
        each = [values[value].get(row, {}).get(name) for value in values for row in rows for name in measures]
        scales = {name: extent(filter(_drawable, each[place :: len(measures)])) for place, name in enumerate(measures)}
        found.append(
            Groups(name, _columns(scales), [_group(view, v, values[v], rows, scales) for v in _sorted(values)])
        )
    return found


def costs(view: View) -> tuple[list[str], list[CostLine]]:
    """Names of the columns in which any row has a figure, and the rows that have one; all are means a question."""
    used = [key for key in COSTS if any(row.cost.get(key) for row in view.scores.systems.values())]
    lines = [
        CostLine(row_name(name), view.tone(name), [(_figure(row.cost, key), alarm(row.cost, key)) for key in used])
        for name, row in view.scores.systems.items()
        if any(row.cost.get(key) for key in used)
    ]
    return [COSTS[key] for key in used], lines


def alarm(cost: Mapping[str, float], key: str) -> bool:
    """Whether so much was unparsed, forced or left without an answer that the row should be doubted."""
    comparisons = cost.get("comparisons", 0.0)
    if key == "unparsed":
        return comparisons > 0 and cost.get(key, 0.0) >= _UNPARSED * comparisons
    if key == "forced":
        return comparisons > 0 and cost.get(key, 0.0) >= _FORCED * comparisons
    return key == "reader_empty" and cost.get(key, 0.0) >= _EMPTY


def _figure(cost: Mapping[str, float], key: str) -> str:
    found = cost.get(key)
    return f"{percent(found, 0)} %" if key == "reader_empty" and found else amount(found)


def _columns(scales: Mapping[str, tuple[float, float]]) -> list[Column]:
    return [
        Column(one, measure_name(one), f"{100 * low:.0f}", f"{100 * high:.0f}") for one, (low, high) in scales.items()
    ]


def _cell(view: View, row: str, measure: str, scale: tuple[float, float]) -> Cell:
    found = view.estimate(row, measure)
    if found is None:
        return Cell()
    reference = view.estimate("none", measure)
    change = view.difference(row, measure)
    return _drawn(found, scale, reference if row != "none" else None, change, row in view.best(measure))


def _drawn(
    found: Estimate,
    scale: tuple[float, float],
    reference: Estimate | None,
    change: Difference | None = None,
    best: bool = False,
) -> Cell:
    at, low, high = (scaled(value, *scale, _EDGE, PLOT - _EDGE) for value in (found.mean, found.low, found.high))
    mark = scaled(reference.mean, *scale, _EDGE, PLOT - _EDGE) if reference is not None else None
    return Cell(
        percent(found.mean),
        interval(found),
        f"{points(change.mean)} ({interval(change)})" if change else "",
        p_value(change.p) if change else "",
        sure(change) if change else 0,
        best,
        Plot(at, low, high, mark),
    )


def _group(
    view: View,
    value: str,
    found: Mapping[str, Mapping[str, Estimate]],
    rows: Sequence[str],
    scales: Mapping[str, tuple[float, float]],
) -> Group:
    lines = []
    for row in rows:
        estimates = {name: found.get(row, {}).get(name) for name in scales}
        references = {name: found.get("none", {}).get(name) if row != "none" else None for name in scales}
        cells = [
            _drawn(one, scales[name], references[name]) if one is not None and _drawable(one) else Cell()
            for name, one in estimates.items()
        ]
        lines.append(TableLine(row_name(row), "", view.tone(row), cells))
    n = max((one.n for measures in found.values() for one in measures.values()), default=0)
    return Group(value or "(none given)", n, lines)


def _sorted(values: Iterable[str]) -> list[str]:
    return sorted(values, key=lambda value: (not value.isdecimal(), int(value) if value.isdecimal() else 0, value))


def _drawable(one: Estimate | None) -> bool:
    return one is not None and finite(one.mean, one.low, one.high)
