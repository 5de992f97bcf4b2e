"""Where the supports stood before and stand after: flows between ranks, a matrix of bands of ranks, a summary by row.

Knows ranks; nothing of HTML and colours, except that a line needs a place and a width.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from rankr1_eval.report.view import View
from rankr1_eval.report.wording import DASH

ROW = 17
"""Height of a rank in the picture."""
WIDTH = 260
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
    left, right, middle = ROW * before + ROW // 2, ROW * after + ROW // 2, WIDTH // 2
    path = f"M0 {left}C{middle} {left} {middle} {right} {WIDTH} {right}"
    turn = (before > after) - (before < after)
    return Flow(
        labels[before][1], labels[after][1], count, turn, path, round(1.25 + 8.75 * (count - 1) / max(most, 12), 2)
    )


def _band(low: int, high: int) -> str:
    if high > 1000:
        return f"> {low - 1}"
    return str(low) if low == high else f"{low}{DASH}{high}"
