"""The slope chart as numbers: which candidates are drawn, where, and what is left out between them.

Two columns of equally high rows, first-stage order on the left and the ranking on the right, and one curve for each
candidate of the first stage: what was found later stands on the right alone.
Knows positions and ranks; nothing of HTML, colours or text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rankr1_rag.types import Ranking

ROW = 26
"""Height of a row in CSS pixels; page.css gives its list items the same."""
WIDTH = 100
_ALL = 30
"""Up to so many candidates all are drawn."""
_TOP = 20
"""Of more candidates, those that have one of the first k ranks on either side, but no more than so many ranks."""


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate at a rank or, where `position` is None, `hidden` candidates that are not drawn."""

    rank: int = 0
    position: int | None = None
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """From the left column to the right one; `path` is SVG path data."""

    position: int
    rank: int
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Two columns, the curves between them, and the size of the drawing."""

    left: list[Row]
    right: list[Row]
    curves: list[Curve]
    height: int
    width: int = WIDTH


def chart(ranking: Ranking) -> Chart:
    """The selected, what they pushed down from the top, and whatever else there is room for."""
    drawn = _drawn(ranking)
    left = _column(range(len(ranking) - ranking.retrieved), drawn)
    right = _column(ranking.order, drawn)
    at_left, at_right = _heights(left), _heights(right)
    ranks = {row.position: row.rank for row in right}
    curves = [Curve(position, ranks[position], _path(at_left[position], at_right[position])) for position in at_left]
    # The best drawn last lies on top of the others.
    curves.sort(key=lambda curve: -curve.rank)
    return Chart(left, right, curves, ROW * max(len(left), len(right)))


def _drawn(ranking: Ranking) -> set[int]:
    top = len(ranking) if len(ranking) <= _ALL else min(ranking.k, _TOP)
    return {*ranking.order[:top], *range(top)}


def _column(positions: Iterable[int], drawn: set[int]) -> list[Row]:
    rows: list[Row] = []
    for rank, position in enumerate(positions, start=1):
        if position in drawn:
            rows.append(Row(rank, position))
        elif rows and rows[-1].hidden:
            rows[-1] = Row(hidden=rows[-1].hidden + 1)
        else:
            rows.append(Row(hidden=1))
    return rows


def _heights(column: list[Row]) -> dict[int, int]:
    return {row.position: ROW * place + ROW // 2 for place, row in enumerate(column) if row.position is not None}


def _path(left: int, right: int) -> str:
    middle = WIDTH // 2
    return f"M0 {left}C{middle} {left} {middle} {right} {WIDTH} {right}"
