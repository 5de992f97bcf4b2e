"""How good a ranking is that ends early: nDCG@10 against the part of its comparisons that were made.

Simulated judges on the queries, grades and BM25 run of TREC DL 2019, and on a stronger first stage of the same
candidates. Run `python -m bench.anytime ../shared/data/trec-dl-2019 [--repeats 5] > bench/anytime.md`, which draws
bench/anytime.png too.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from rankr1_eval.measures.intervals import differences
from rankr1_eval.simulation.judges import JudgedQuery, described, judge_named, judged_queries, utilities
from rankr1_eval.simulation.picture import COLOURS, STYLE
from rankr1_rag.io.trec import Qrels
from rankr1_rag.selection import ALGORITHMS, LISTWISE, Answer, Done, Set, so_far, step

DEPTH, K, SIZE = 100, 10, 20
CUTS = [cut / 10 for cut in range(11)]
JUDGES = ("perfect", "noisy:0.25", "noisy:0.5", "noisy:1", "circular:1")
FIRST_STAGES = {"BM25": None, "a stronger first stage": 1.0}
"""The order of the run, or that of utility + N(0, noise), in grades."""
NOTES = Path(__file__).with_name("anytime-notes.md")
PICTURE = Path(__file__).with_name("anytime.png")

Asked = list[tuple[Set, Answer]]
Rule = Callable[[int, Asked, list[int]], list[int]]


def most_won(n: int, asked: Asked, chosen: list[int]) -> list[int]:
    """What was selected, then what won the greatest part of its sets, then the first-stage order."""
    won = Counter(answer[0] for _, answer in asked)
    seen = Counter(position for shown, _ in asked for position in shown)
    winners = sorted(won, key=lambda position: (-won[position] / seen[position], position))
    return list(dict.fromkeys([*chosen, *winners, *range(n)]))


def in_front(n: int, asked: Asked, chosen: list[int]) -> list[int]:
    """A winner moves in front of the foremost that it beat, and no further."""
    order = list(range(n))
    for shown, (winner, *_) in asked:
        foremost = min(order.index(position) for position in shown)
        order.remove(winner)
        order.insert(foremost, winner)
    return list(dict.fromkeys([*chosen, *order]))


RULES: dict[str, Rule] = {"most won": most_won, "in front of those beaten": in_front, "`so_far`": so_far}


@dataclass(frozen=True)
class Case:
    """A query once drawn: the grades and utilities along a first stage, and the seed of the judge."""

    grades: tuple[int, ...]
    worth: tuple[float, ...]
    seed: str

    @classmethod
    def draw(cls, query: JudgedQuery, repeat: int, noise: float | None) -> Case:
        seed = f"0 {repeat} {query.query}"
        worth, dice, order = utilities(query.grades, seed), Random(f"first stage {seed}"), range(len(query.grades))
        if noise is not None:
            scores = [one + dice.gauss(0, noise) for one in worth]
            order = sorted(order, key=scores.__getitem__, reverse=True)  # type: ignore[assignment]
        return cls(tuple(query.grades[place] for place in order), tuple(worth[place] for place in order), seed)

    def play(self, algorithm: str, judge: str, *, foremost: bool = True) -> tuple[Asked, list[list[int]]]:
        """The comparisons in the order asked, and what was chosen before each of them, and at the end.

        Of a round those sets with the foremost candidates go first, as in the engine.
        """
        opinion, again, chosen = judge_named(judge)(self.worth, self.seed), Counter[Set](), list[int]()
        selection, asked, before = ALGORITHMS[algorithm](len(self.worth), K, SIZE, chosen), Asked(), []
        state = step(selection)
        while not isinstance(state, Done):
            answers: dict[int, Answer] = {}
            turns = sorted(range(len(state)), key=[min(shown) for shown in state].__getitem__)
            for place in turns if foremost else range(len(state)):
                answer = opinion(state[place], again[state[place]])
                again[state[place]] += 1
                answers[place] = answer if algorithm in LISTWISE else answer[:1]
                before.append(list(chosen))
                asked.append((state[place], answers[place]))
            state = step(selection, [answers[place] for place in range(len(state))])
        return asked, [*before, state.value]


def ndcg(grades: Sequence[int], order: Sequence[int], ideal: float) -> float:
    gains = [grades[position] / math.log2(rank + 1) for rank, position in enumerate(order[:K], 1)]
    return sum(gains) / ideal if ideal else 0.0


def curve(case: Case, algorithm: str, judge: str, ideal: float, rule: Rule, *, foremost: bool = True) -> list[float]:
    """nDCG@10 at each of the CUTS."""
    asked, chosen = case.play(algorithm, judge, foremost=foremost)
    made = [int(cut * len(asked) + 1e-9) for cut in CUTS]
    orders = [rule(len(case.grades), asked[:number], chosen[number]) for number in made]
    return [ndcg(case.grades, order, ideal) for order in orders]


@dataclass(frozen=True)
class Measured:
    """The curves of each query, a line a query, a column a cut; means over the repeats."""

    scores: Any

    @property
    def means(self) -> list[float]:
        found: list[float] = self.scores.mean(axis=0).tolist()
        return found

    @property
    def worst(self) -> str:
        """The greatest loss at any cut, with its interval, from the first stage, or from the end if that is worse."""
        end = -1 if self.means[-1] < self.means[0] else 0
        apart = differences(self.scores - self.scores[:, [end]])
        least = min(apart, key=lambda one: one.mean)
        mark = "**" if least.high < 0 else ""
        return f"{mark}{least.mean:+.3f} [{least.low:+.3f}, {least.high:+.3f}]{mark}"


class Bench:
    """All queries, with `repeats` draws of each."""

    def __init__(self, folder: Path, repeats: int) -> None:
        run, qrels = folder / "run.bm25.top100.trec", folder / "qrels.txt"
        self.queries, found, _ = judged_queries(run, qrels, DEPTH)
        self.ideals, self.repeats = self.read_ideals(found), repeats

    def read_ideals(self, qrels: Qrels) -> dict[str, float]:
        ideals = {}
        for query, grades in qrels.items():
            best = sorted((max(0, grade) for grade in grades.values()), reverse=True)
            ideals[query] = ndcg(best, range(min(K, len(best))), 1.0)
        return ideals

    def measure(
        self, algorithm: str, judge: str, first: str, rule: Rule = so_far, *, foremost: bool = True
    ) -> Measured:
        scores = np.zeros((len(self.queries), len(CUTS)))
        for (line, query), repeat in product(enumerate(self.queries), range(self.repeats)):
            case = Case.draw(query, repeat, FIRST_STAGES[first])
            scores[line] += curve(case, algorithm, judge, self.ideals[query.query], rule, foremost=foremost)
        return Measured(scores / self.repeats)


def table(title: str, rows: dict[str, Measured]) -> str:
    head = f"| {title} | {' | '.join(f'{cut:.0%}' for cut in CUTS)} | worst loss |"
    means = {name: " | ".join(f"{one:.3f}" for one in row.means) for name, row in rows.items()}
    lines = [f"| {name} | {means[name]} | {row.worst} |" for name, row in rows.items()]
    return "\n".join([head, "|---|" + "---:|" * (len(CUTS) + 1), *lines, ""])


def draw(curves: dict[tuple[str, str], dict[str, Measured]]) -> None:
    """A row of panels for each first stage, a panel for each judge."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(13, 5.6), dpi=110)
        FigureCanvasAgg(drawn)
        grid = drawn.subplots(len(FIRST_STAGES), len(JUDGES), sharex=True, sharey="row", squeeze=False)
        drawn.subplots_adjust(0.045, 0.09, 0.99, 0.84, wspace=0.08, hspace=0.32)
        for (row, first), (column, judge) in product(enumerate(FIRST_STAGES), enumerate(JUDGES)):
            axes, panel = grid[row][column], curves[first, judge]
            axes.axhline(panel["tournament"].means[0], color="#C8C8C8", linewidth=1, linestyle=(0, (4, 3)))
            for colour, (name, measured) in zip(COLOURS, panel.items(), strict=False):
                axes.plot([100 * cut for cut in CUTS], measured.means, color=colour, linewidth=1.5, label=name)
            axes.set_title(described(judge), loc="left", fontsize=9, fontweight="bold")
            axes.set_xlabel("% of the comparisons made" if row else "")
            axes.set_ylabel(f"nDCG@{K}, {first}" if not column else "")
        handles, labels = grid[0][0].get_legend_handles_labels()
        drawn.text(0.045, 0.955, "nDCG@10 of a ranking that ends early", fontsize=14, fontweight="bold", va="center")
        note = "Dashed: the first stage. TREC DL 2019, top 10 of 100 in sets of 20; window is answered by whole orders."
        drawn.text(0.045, 0.915, note, color="#666666", va="center")
        drawn.legend(handles, labels, loc="upper right", bbox_to_anchor=(0.99, 1.0), ncols=len(labels), frameon=False)
        drawn.savefig(PICTURE, format="png")


def report(bench: Bench, command: str) -> str:
    curves: dict[tuple[str, str], dict[str, Measured]] = {}
    parts = []
    for first, judge in product(FIRST_STAGES, JUDGES):
        rows = {name: bench.measure(name, judge, first) for name in ALGORITHMS}
        curves[first, judge] = rows
        parts.append(f"## {first}, {judge}: {described(judge)}\n\n{table('algorithm', rows)}")
    draw(curves)
    for first, judge in product(FIRST_STAGES, ("noisy:0.25", "noisy:1")):
        rows = {name: bench.measure("tournament", judge, first, rule) for name, rule in RULES.items()}
        rows["`so_far`, sets in the order of the algorithm"] = bench.measure("tournament", judge, first, foremost=False)
        parts.append(f"## Rules for the order, {first}, tournament, {judge}\n\n{table('rule', rows)}")
    count = len(bench.queries)
    head = f"""# How good a ranking is that ends early

Made by `{command}`.

![nDCG@10 against the part of the comparisons made](anytime.png)

nDCG@10 after a part of the comparisons, one after another: top {K} of {DEPTH} in sets of {SIZE}, {count} queries
of TREC DL 2019, {bench.repeats} draws of each one. 0 % is the first stage, 100 % the whole ranking. The worst loss is
the lowest point of a curve below the first stage, or below the whole ranking if that is lower; with its 95 % interval,
queries paired, and in bold if that does not reach 0. The stronger first stage orders the candidates by
utility + N(0, 1), in grades. Judges and utilities: see [selection_study.md](selection_study.md).
"""
    return "\n".join([head, *parts, NOTES.read_text(encoding="utf-8")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with run.bm25.top100.trec and qrels.txt of TREC DL 2019")
    parser.add_argument("--repeats", type=int, default=5, help="draws of each query (default: %(default)s)")
    options = parser.parse_args()
    command = f"python -m bench.anytime ../shared/data/trec-dl-2019 --repeats {options.repeats} > bench/anytime.md"
    sys.stdout.write(report(Bench(options.folder, options.repeats), command))


if __name__ == "__main__":
    main()
