"""Every way to select against every judge, on the same queries: what it found and what it cost, with intervals.

For each query the hidden preferences and the noise are drawn anew `repeats` times; a query's score is its mean over
them, and intervals are over queries. All ways and judges share the draws. Knows cases, judges and ways; must not know
files.

One selection played through against one judge, and what it cost.

Knows positions. Must not know grades, measures or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rankr1_eval.measures.intervals import differences, estimates
from rankr1_eval.simulation.judges import Case, Judge, Opinion, utilities
from rankr1_eval.simulation.ways import Way
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.io.trec import Qrels
from rankr1_rag.selection import Done, Selection, Set, step


@dataclass(frozen=True, slots=True)
class Played:
    """The positions selected, best first, and the cost. A passage is read each time it is shown."""

    chosen: tuple[int, ...]
    comparisons: int
    rounds: int
    passages_read: int


def played(selection: Selection, opinion: Opinion, listwise: bool) -> Played:
    """The selection answered by the judge's opinion: by whole orders where it is listwise, else by the best alone."""
    asked: Counter[Set] = Counter()
    rounds, state = 0, step(selection)
    while not isinstance(state, Done):
        answers = []
        for shown in state:
            answer = opinion(shown, asked[shown])
            asked[shown] += 1
            answers.append(answer if listwise else answer[:1])
        rounds, state = rounds + 1, step(selection, answers)
    read = sum(len(shown) * times for shown, times in asked.items())
    return Played(tuple(state.value), asked.total(), rounds, read)


COSTS = ("comparisons", "rounds", "passages_read")
MEASURES = ("ndcg", "recall", *COSTS)
"""nDCG@k by the qrels; the share of the k best by utility that were selected; the cost of a query."""

REFERENCE = "tournament"
"""What the others are compared with, the package's default; the first of them where it is not among them."""

NONE, IDEAL = "no rerank", "ideal order"
LARGEST = 20
"""The most passages in a set: as many labels as the published formats have."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The top k of the first `depth` candidates, in sets of up to `size`. ValueError where that makes no sense."""

    depth: int = 100
    k: int = 10
    size: int = 20
    repeats: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.size <= LARGEST:
            raise ValueError(f"size={self.size}: a set holds 2 to {LARGEST} passages")
        if not 1 <= self.k <= self.depth:
            raise ValueError(f"k={self.k}: at least 1, and at most the depth, {self.depth}")
        if self.repeats < 1:
            raise ValueError(f"repeats={self.repeats}: at least 1")


@dataclass(frozen=True, slots=True)
class Line:
    """One way under one judge: each of MEASURES, and nDCG's difference from the reference, None for itself."""

    judge: str
    way: str
    scores: Mapping[str, Estimate]
    difference: Difference | None


@dataclass(frozen=True)
class Study:
    """The lines, judge by judge in the order asked for, and the two bounds: NONE and IDEAL, whose cost is 0."""

    setting: Setting
    queries: int
    reference: str
    bounds: Mapping[str, Mapping[str, Estimate]]
    lines: tuple[Line, ...]

    def under(self, judge: str) -> list[Line]:
        """The lines of a judge."""
        return [line for line in self.lines if line.judge == judge]


Table = NDArray[np.float64]
Ranked = dict[str, tuple[str, ...]]
"""Query id to the passages selected, best first."""


def study(
    cases: Sequence[Case],
    qrels: Qrels,
    setting: Setting,
    judges: Mapping[str, Judge],
    ways: Sequence[Way],
    advance: Callable[[], None] = lambda: None,
) -> Study:
    """Play all of it; `advance` is called after each query. The order of cases, judges and ways changes no figure."""
    cases = sorted(cases, key=lambda case: case.query)
    tally = _Tally(cases, {case.query: qrels[case.query] for case in cases}, setting)
    for place, case in enumerate(cases):
        for repeat in range(setting.repeats):
            key = f"{setting.seed} {repeat} {case.query}"
            worth = utilities(case.grades, key)
            tally.bounds(place, repeat, worth)
            for name, judge in judges.items():
                opinion = judge.opinion(worth, key)
                for way in ways:
                    selection = way.make(len(worth), setting.k, setting.size, crc32(key.encode()))
                    tally.add((name, way.name), place, repeat, worth, played(selection, opinion, way.listwise))
        advance()
    return _summed(tally.tables(), setting, list(judges), [way.name for way in ways])


class _Tally:
    """What was found, cell by cell: a cell is a judge and a way, or a bound."""

    def __init__(self, cases: Sequence[Case], qrels: Qrels, setting: Setting) -> None:
        self._cases, self._qrels, self._setting = cases, qrels, setting
        self._sums: dict[tuple[str, str], Table] = {}
        self._ranked: dict[tuple[str, str], list[Ranked]] = {}

    def add(self, cell: tuple[str, str], place: int, repeat: int, worth: Sequence[float], found: Played) -> None:
        """One selection played, for the case in this place."""
        case, repeats = self._cases[place], self._setting.repeats
        table = self._sums.setdefault(cell, np.zeros((len(self._cases), len(MEASURES))))
        table[place, 1:] += (_recall(found.chosen, worth), found.comparisons, found.rounds, found.passages_read)
        ranked = self._ranked.setdefault(cell, [{} for _ in range(repeats)])
        ranked[repeat][case.query] = tuple(case.ids[position] for position in found.chosen)

    def bounds(self, place: int, repeat: int, worth: Sequence[float]) -> None:
        """The first-stage order and the ideal one."""
        k, positions = self._setting.k, range(len(worth))
        best = sorted(positions, key=worth.__getitem__, reverse=True)
        self.add(("", NONE), place, repeat, worth, Played(tuple(positions[:k]), 0, 0, 0))
        self.add(("", IDEAL), place, repeat, worth, Played(tuple(best[:k]), 0, 0, 0))

    def tables(self) -> dict[tuple[str, str], Table]:
        """For each cell the means over the repeats: a line a query, a column for each of MEASURES."""
        order = {case.query: place for place, case in enumerate(self._cases)}
        ndcg = _ndcg(self._qrels, self._setting.k)
        for cell, table in self._sums.items():
            for ranked in self._ranked[cell]:
                for query, value in ndcg(ranked).items():
                    table[order[query], 0] += value
        return {cell: table / self._setting.repeats for cell, table in self._sums.items()}


def _recall(chosen: Sequence[int], worth: Sequence[float]) -> float:
    best = sorted(range(len(worth)), key=worth.__getitem__, reverse=True)[: len(chosen)]
    return len(set(best) & set(chosen)) / len(chosen)


def _ndcg(qrels: Qrels, k: int) -> Callable[[Ranked], dict[str, float]]:
    from ir_measures import evaluator, nDCG

    measured = evaluator([nDCG @ k], qrels)

    def of(ranked: Ranked) -> dict[str, float]:
        run = {query: {id: float(-place) for place, id in enumerate(ids)} for query, ids in ranked.items()}
        return {metric.query_id: float(metric.value) for metric in measured.iter_calc(run)}

    return of


def _summed(
    tables: Mapping[tuple[str, str], Table], setting: Setting, judges: Sequence[str], ways: Sequence[str]
) -> Study:
    reference = REFERENCE if REFERENCE in ways else ways[0]
    cells = [(judge, way) for judge in judges for way in ways]
    scores = dict(zip(tables, _scores(list(tables.values())), strict=True))
    apart = differences(np.stack([tables[cell][:, 0] - tables[cell[0], reference][:, 0] for cell in cells], axis=1))
    lines = [
        Line(judge, way, scores[judge, way], None if way == reference else difference)
        for (judge, way), difference in zip(cells, apart, strict=True)
    ]
    bounds = {name: scores["", name] for name in (NONE, IDEAL)}
    return Study(setting, len(next(iter(tables.values()))), reference, bounds, tuple(lines))


def _scores(tables: Sequence[Table]) -> list[dict[str, Estimate]]:
    flat = iter(estimates(np.concatenate(tables, axis=1)))
    return [{measure: next(flat) for measure in MEASURES} for _ in tables]
