"""Slope charts as drawing data: two columns of ranks and the curves between them; `parts.html.j2` draws them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

WIDTH = 100
"""Width of the drawing between the columns in units of its view box; the page stretches it."""


@dataclass(frozen=True, slots=True)
class SlopeLabel:
    """One line of a column; without a rank it is a gap. `style` is a CSS class."""

    rank: str
    name: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Slope:
    """A curve from one line of the left column to one of the right, both counted from 0 at the top."""

    left: int
    right: int
    title: str
    style: str = ""
    width: float = 1.5
    count: int = 1


@dataclass(frozen=True, slots=True)
class SlopeChart:
    """Both columns and their curves, those that lie on top last; `line` is the height of a line in CSS pixels.

    A dashed rule is drawn below the first `cut` lines, unless that is 0.
    """

    left: list[SlopeLabel]
    right: list[SlopeLabel]
    slopes: list[Slope]
    line: int = 26
    cut: int = 0

    @property
    def height(self) -> int:
        """Height of the drawing in CSS pixels."""
        return self.line * max(len(self.left), len(self.right))

    def path(self, slope: Slope) -> str:
        """A curve as SVG path data."""
        left, right = (self.line * place + self.line // 2 for place in (slope.left, slope.right))
        return f"M0 {left}C{WIDTH // 2} {left} {WIDTH // 2} {right} {WIDTH} {right}"


def compare_orders(
    before: Sequence[Key],
    after: Sequence[Key],
    drawn: Collection[Key],
    name: Callable[[Key], str],
    style: Callable[[Key], str],
) -> SlopeChart:
    """Two orders, best first: a line for each key that is `drawn`, gaps for the others.

    Keys with a style lie on top of those without, of equal ones the best on top.
    """
    columns: list[list[SlopeLabel]] = []
    lines: list[dict[Key, int]] = []
    for order in (before, after):
        column: list[SlopeLabel] = []
        line: dict[Key, int] = {}
        for is_drawn, members in groupby(enumerate(order, start=1), lambda pair: pair[1] in drawn):
            ranked = list(members)
            if not is_drawn:
                column.append(SlopeLabel("", f"{len(ranked):,} more", "gap"))
                continue
            for rank, key in ranked:
                line[key] = len(column)
                column.append(SlopeLabel(str(rank), name(key), style(key)))
        columns.append(column)
        lines.append(line)
    left, right = columns
    slopes = [
        Slope(
            place,
            lines[1][key],
            f"{name(key)}: {left[place].rank} → {right[lines[1][key]].rank}",
            style(key),
            2.5 if style(key) else 1.5,
        )
        for key, place in lines[0].items()
        if key in lines[1]
    ]
    return SlopeChart(left, right, sorted(slopes, key=lambda slope: (bool(slope.style), -slope.right)))


def count_moves(labels: Sequence[str], counts: Mapping[tuple[int, int], int], noun: str, cut: int = 0) -> SlopeChart:
    """The same labels on both sides and a curve for each move (left line, right line), the wider the more there are."""
    column = [SlopeLabel(label, "", "read" if place < cut else "") for place, label in enumerate(labels)]
    most = max(counts.values(), default=0)
    slopes = [
        Slope(
            left,
            right,
            f"{count:,} {noun}{'' if count == 1 else 's'}: {labels[left]} → {labels[right]}",
            "up" if right < left else "down" if right > left else "same",
            round(1.25 + 8.75 * (count - 1) / max(most, 12), 2),
            count,
        )
        for (left, right), count in sorted(counts.items(), key=lambda item: item[1])
    ]
    return SlopeChart(column, column, slopes, 18, cut if cut < len(labels) else 0)
