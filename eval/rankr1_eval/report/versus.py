"""Two runs, or rows of one, side by side as one HTML file of the same kind as a run's report.

Knows pairs of means and their differences; nothing of models or folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rankr1_eval.paired import Pair, Paired
from rankr1_eval.report.charts import scaled
from rankr1_eval.report.page import rendered
from rankr1_eval.report.wording import (
    BOUNDS,
    FLOORS,
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
from rankr1_rag.explain.text import counted, start
from rankr1_rag.files import FilePath, writing

WIDTH = 220
_EDGE = 5


@dataclass(frozen=True, slots=True)
class Line:
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
    lines: list[Line]


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
        for row, group in groupby(sorted(found.pairs, key=_reference), key=lambda pair: pair.row)
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
    if pair.row == pair.against:
        second, first = f" in {second}", f"in {first}"
    else:
        first, second = sides(pair.row, pair.against, first, second)[0], ""
    return (
        f"{row_name(pair.row)}: {measure_name(pair.measure)} is {percent(pair.second)} %{second}, "
        f"{compared} {first}{verdict} ({interval(change)}). "
        f"Of {counted(len(found.pairs), 'difference')}, {moved} {'stands' if moved == 1 else 'stand'} out."
    )


def _leading(pairs: Sequence[Pair]) -> Pair:
    """Support recall or F1 of the first row that reranks, else the first of all."""
    own = [pair for pair in pairs if pair.row.startswith("rank-r1")] or list(pairs)
    wanted = [pair for name in ("R@5", "F1@5") for pair in own if pair.measure == name]
    return (wanted or own)[0]


def _reference(pair: Pair) -> bool:
    """Whether its row makes no claim; those stand last."""
    return kind(pair.row) in ("none", *BOUNDS, *FLOORS)


def _line(pair: Pair, reach: float) -> Line:
    change = pair.difference
    at, low, high = (
        scaled(value, -reach, reach, _EDGE, WIDTH - _EDGE) for value in (change.mean, change.low, change.high)
    )
    return Line(
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
