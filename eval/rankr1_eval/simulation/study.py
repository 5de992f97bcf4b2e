"""Plays every way to select against every judge on the same queries, and sums up results and costs with intervals.

For each query the hidden preferences and the noise are drawn `repeats` times; a query's score is its mean over these,
and intervals are over queries. All ways and judges share the draws.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from rankr1_eval.measures.intervals import Table, differences, estimates
from rankr1_eval.simulation.judges import Judge, JudgedQuery, Opinion, distinct, utilities
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.io.trec import Qrels
from rankr1_rag.selection import ALGORITHMS, LISTWISE, Done, Selection, Set, step, voted, window

VOTED = ("heapsort:3", "tournament:3", "window:3")
PASSES = ("window/10x2",)
"""Windows in steps, as the authors of listwise models make them, here in two passes."""
COSTS = ("comparisons", "rounds", "passages_read")
MEASURES = ("ndcg", "recall", *COSTS)
"""nDCG@k by the qrels; the share of the k best by utility that were selected; the cost of a query."""
REFERENCE = "tournament"
"""Compared with the others: the package's default, or the first of them if it is not among them."""
NONE, IDEAL = "no rerank", "ideal order"
LARGEST = 20
"""The most passages in a set: the number of labels of the published formats."""


@dataclass(frozen=True, slots=True)
class Way:
    """A selection to be started as `make(n, k, size, seed)`; `listwise` if it is answered by whole orders."""

    name: str
    make: Callable[[int, int, int, int], Selection]
    listwise: bool = False


WAYS = (*ALGORITHMS, *VOTED, *PASSES)
"""The names of all ways: every algorithm, some with votes, windows in steps with passes."""


def ways_named(names: Sequence[str]) -> list[Way]:
    """The ways of these names. ValueError for an unknown name, a name twice, or none."""
    return [way_named(name) for name in distinct("algorithm", names)]


def way_named(name: str) -> Way:
    """The way of this name: "tournament", or "tournament:3" with three votes a set. ValueError for any other name.

    "window/10x2": two passes of windows, each 10 positions before the last if they hold 20, or the same part of less.
    """
    base, colon, number = name.partition(":")
    algorithm, slash, windows = base.partition("/")
    if colon and not (number.isdecimal() and 1 <= int(number) <= 1000):
        raise ValueError(f"algorithm {name!r}: {number!r} is not a whole number from 1 to 1000")
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"no algorithm is called {name!r}: there are {', '.join(ALGORITHMS)}, each with votes as NAME:3"
        )
    make: Callable[[int, int, int], Selection] = ALGORITHMS[algorithm]
    votes = int(number or 1)
    if slash:
        if algorithm not in LISTWISE or not (found := re.fullmatch("([1-9]|1[0-9])x([1-9][0-9]?)", windows)):
            raise ValueError(f"algorithm {name!r}: only window has steps and passes, as window/STEPxPASSES, 10x2 say")
        distance, passes = int(found[1]), int(found[2])
        make = lambda n, k, size: window(n, k, size, step=max(1, distance * size // LARGEST), passes=passes)  # noqa: E731
    return Way(name, lambda n, k, size, seed: voted(make(n, k, size), votes, seed), algorithm in LISTWISE)


@dataclass(frozen=True, slots=True)
class Played:
    """The positions selected, best first, and the cost. A passage is read each time it is shown."""

    chosen: tuple[int, ...]
    comparisons: int = 0
    rounds: int = 0
    passages_read: int = 0


def played(selection: Selection, opinion: Opinion, listwise: bool) -> Played:
    """The selection answered by a judge: by whole orders if it is listwise, else by the best alone."""
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


@dataclass(frozen=True, slots=True)
class Setting:
    """The top k of the first `depth` candidates, in sets of up to `size`. ValueError for what is not possible."""

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
class StudyLine:
    """One way under one judge: each of MEASURES, and nDCG's difference from the reference, None for itself."""

    judge: str
    way: str
    scores: Mapping[str, Estimate]
    difference: Difference | None


@dataclass(frozen=True)
class Study:
    """The lines, judge by judge in the order of the arguments, and the two bounds: NONE and IDEAL, whose cost is 0."""

    setting: Setting
    queries: int
    reference: str
    bounds: Mapping[str, Mapping[str, Estimate]]
    lines: tuple[StudyLine, ...]

    @property
    def judges(self) -> list[str]:
        """The names of the judges."""
        return list(dict.fromkeys(line.judge for line in self.lines))

    def under(self, judge: str) -> list[StudyLine]:
        """The lines of a judge."""
        return [line for line in self.lines if line.judge == judge]


def study(
    queries: Sequence[JudgedQuery],
    qrels: Qrels,
    setting: Setting,
    judges: Mapping[str, Judge],
    ways: Sequence[Way],
    advance: Callable[[], None] = lambda: None,
) -> Study:
    """Play all of it; `advance` is called after each query. The order of queries, judges and ways changes no figure.

    Differences are paired, and all cells share the bootstrap's draws.
    """
    queries = sorted(queries, key=lambda one: one.query)
    found: dict[tuple[str, str], list[list[Played]]] = defaultdict(lambda: [[] for _ in range(setting.repeats)])
    recalls: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in queries:
        for repeat in range(setting.repeats):
            key = f"{setting.seed} {repeat} {one.query}"
            worth = utilities(one.grades, key)
            best = sorted(range(len(worth)), key=worth.__getitem__, reverse=True)[: setting.k]
            cells = {("", NONE): Played(tuple(range(len(best)))), ("", IDEAL): Played(tuple(best))}
            for name, judge in judges.items():
                opinion = judge(worth, key)
                for way in ways:
                    selection = way.make(len(worth), setting.k, setting.size, crc32(key.encode()))
                    cells[name, way.name] = played(selection, opinion, way.listwise)
            for cell, result in cells.items():
                found[cell][repeat].append(result)
                recalls[cell].append(len({*best} & {*result.chosen}) / len(result.chosen))
        advance()
    tables = {cell: score_table(queries, qrels, setting, results, recalls[cell]) for cell, results in found.items()}
    flat = iter(estimates(np.concatenate(list(tables.values()), axis=1)))
    scores = {cell: {measure: next(flat) for measure in MEASURES} for cell in tables}
    names = [way.name for way in ways]
    reference = REFERENCE if REFERENCE in names else names[0]
    pairs = [(judge, way) for judge in judges for way in names]
    apart = differences(np.stack([tables[cell][:, 0] - tables[cell[0], reference][:, 0] for cell in pairs], axis=1))
    lines = tuple(
        StudyLine(judge, way, scores[judge, way], None if way == reference else difference)
        for (judge, way), difference in zip(pairs, apart, strict=True)
    )
    return Study(setting, len(queries), reference, {name: scores["", name] for name in (NONE, IDEAL)}, lines)


def score_table(
    queries: Sequence[JudgedQuery],
    qrels: Qrels,
    setting: Setting,
    found: Sequence[Sequence[Played]],
    recalls: Sequence[float],
) -> Table:
    """Means over the repeats: a line a query, a column for each of MEASURES. `found` is by repeat, then by query."""
    from ir_measures import evaluator, nDCG

    measured = evaluator([nDCG @ setting.k], {one.query: qrels[one.query] for one in queries})
    place = {one.query: number for number, one in enumerate(queries)}
    table = np.zeros((len(queries), len(MEASURES)))
    table[:, 1] = np.array(recalls).reshape(len(queries), -1).sum(axis=1)
    for results in found:
        table[:, 2:] += [(one.comparisons, one.rounds, one.passages_read) for one in results]
        run = {
            one.query: {one.ids[position]: -float(rank) for rank, position in enumerate(result.chosen)}
            for one, result in zip(queries, results, strict=True)
        }
        for metric in measured.iter_calc(run):
            table[place[metric.query_id], 0] += float(metric.value)
    return table / len(found)
