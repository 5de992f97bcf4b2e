"""Is one round of sampled answers to the same prompt as good as a tournament? Simulated judges, no model is asked.

    python -m bench.ballot [--cases 1000] > bench/ballot.md

Knows positions and true places only.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from random import Random
from statistics import mean

from bench.selection import Setting
from rankr1_rag.selection import ALGORITHMS, Answer, Done, Selection, Set, step, voted
from rankr1_rag.selection.voting import borda

SETTING = Setting(20, 5, 20, 5.0)
N, K, SIZE = SETTING.n, SETTING.k, SETTING.size
NOTES = Path(__file__).with_name("ballot-notes.md")


@dataclass(frozen=True)
class Judge:
    """A Plackett-Luce judge; all in true places.

    `noise` is drawn for each answer, as a temperature does: the odds of naming a passage fall by e with every so
    many places. `error`, N(0, error), is drawn once a passage and query: what the model has wrong however often it is
    asked. A passage seems worse by `bias` for each place further down the prompt.
    """

    name: str
    noise: float
    error: float = 0.0
    bias: float = 0.0

    def answer(self, shown: Set, belief: list[float], listwise: bool, dice: Random) -> Answer:
        worth = {position: -belief[position] - self.bias * place for place, position in enumerate(shown)}
        if listwise:
            drawn = {one: value - self.noise * math.log(dice.expovariate(1)) for one, value in worth.items()}
            return tuple(sorted(shown, key=drawn.__getitem__, reverse=True))
        if not self.noise:
            return (max(shown, key=worth.__getitem__),)
        most = max(worth.values())
        weights = [math.exp((worth[position] - most) / self.noise) for position in shown]
        return tuple(dice.choices(shown, weights))


JUDGES = (
    *(Judge(f"noise {noise:g}", noise) for noise in (0.5, 1.0, 2.0, 4.0, 8.0)),
    Judge("2, likes the first", 2.0, bias=0.25),
    Judge("2, likes the last", 2.0, bias=-0.25),
    Judge("wrong by 2, greedy", 0.0, error=2.0),
    *(Judge(f"wrong by 2, noise {noise:g}", noise, error=2.0) for noise in (1.0, 2.0, 4.0, 8.0)),
)


@dataclass(frozen=True)
class Way:
    """A selection to compare, made again for each seed."""

    name: str
    make: Callable[[int], Selection]
    listwise: bool = False


def asked(name: str, votes: int) -> Way:
    called = f"{'window' if name == 'window' else 'tournament = heapsort = ahead'}, {votes} vote{'s' * (votes > 1)}"
    return Way(called, lambda seed: voted(ALGORITHMS[name](N, K, SIZE), votes, seed), name == "window")


@cache
def ballot(ballots: int) -> Selection:
    """The K with the most votes, or points of orders, of this many answers to all N, in one round."""
    answers = yield [tuple(range(N))] * ballots
    return list(dict.fromkeys((*borda(answers, N), *range(N))))[:K]


def same(ballots: int, listwise: bool = False) -> Way:
    return Way(f"ballot, {ballots}", lambda seed: ballot(ballots), listwise)


@cache
def shuffled(ballots: int) -> Way:
    return Way(f"ballot in fresh orders, {ballots}", lambda seed: voted(ballot(1), ballots, seed))


def nothing_asked() -> Selection:
    yield from ()
    return list(range(K))


FIRST_STAGE = Way("first stage", lambda seed: nothing_asked())
ONE, THREE = asked("tournament", 1), asked("tournament", 3)
WINNERS = (ONE, THREE, *map(same, (4, 8, 16, 32)), *map(shuffled, (8, 32)))
ORDERS = (asked("window", 1), asked("window", 3), *(same(ballots, listwise=True) for ballots in (4, 8, 16, 32)))
MORE = (4, 8, 16, 32, 64, 128, 256)
NEAR = 0.005
"""A ballot less than this below the tournament counts as as good."""


@dataclass(frozen=True)
class Played:
    ndcg: float
    recall: float
    comparisons: int
    rounds: int
    passages: int
    read: int
    """Passages in prompts that were not shown before: each such prompt is counted once."""


def play(way: Way, judge: Judge, seed: int) -> Played:
    """The same case, and the same errors of the judge, for every way."""
    truth, own, dice = SETTING.truth(seed), Random(f"error {seed}"), Random(f"noise {seed}")
    belief = [place + own.gauss(0, judge.error) for place in truth]
    selection, rounds = way.make(seed), list[list[Set]]()
    state = step(selection)
    while not isinstance(state, Done):
        rounds.append(state)
        state = step(selection, [judge.answer(shown, belief, way.listwise, dice) for shown in state])
    sets = list(chain.from_iterable(rounds))
    found = [truth[position] for position in state.value]
    return Played(
        ndcg=_dcg(found) / _dcg(range(K)),
        recall=sum(place < K for place in found) / K,
        comparisons=len(sets),
        rounds=len(rounds),
        passages=sum(map(len, sets)),
        read=sum(map(len, set(sets))),
    )


def _dcg(places: list[int] | range) -> float:
    """Gains K, K - 1, ... 1 for the true top K, else none."""
    return sum(max(0, K - place) / math.log2(2 + rank) for rank, place in enumerate(places))


CASES = 1000


@cache
def plays(way: Way, judge: Judge) -> list[Played]:
    return [play(way, judge, seed) for seed in range(CASES)]


def cost() -> str:
    """The same for every judge."""
    lines = ["| selection | comparisons | rounds | passages shown | in new prompts |", "|---|---:|---:|---:|---:|"]
    for way in (*WINNERS, *ORDERS):
        one = play(way, JUDGES[2], 0)
        name = way.name + ", listwise" * way.listwise
        lines.append(f"| {name} | {one.comparisons} | {one.rounds} | {one.passages} | {one.read} |")
    return "\n".join(lines)


def quality(measure: str, ways: tuple[Way, ...]) -> str:
    lines = [f"| selection | {' | '.join(judge.name for judge in JUDGES)} |", "|---|" + "---:|" * len(JUDGES)]
    for way in (FIRST_STAGE, *ways):
        means = " | ".join(f"{average(measure, way, judge):.3f}" for judge in JUDGES)
        lines.append(f"| {way.name} | {means} |")
    return "\n".join(lines)


def average(measure: str, way: Way, judge: Judge) -> float:
    return mean(float(getattr(played, measure)) for played in plays(way, judge))


def enough(measure: str, judge: Judge, target: float) -> str:
    """The fewest ballots that reach the target, and what they reach."""
    reached = {ballots: average(measure, same(ballots), judge) for ballots in MORE}
    good = [ballots for ballots, value in reached.items() if value > target - NEAR]
    return f"{good[0]} ({reached[good[0]]:.3f})" if good else f"more than {MORE[-1]} ({reached[MORE[-1]]:.3f})"


def equals(measure: str) -> str:
    lines = [
        f"| judge | {measure}@5 of the tournament, 1 vote | ballots as good | of 3 votes | ballots as good |",
        "|---|---:|---:|---:|---:|",
    ]
    for judge in JUDGES:
        values = [average(measure, way, judge) for way in (ONE, THREE)]
        cells = [f"{value:.3f} | {enough(measure, judge, value)}" for value in values]
        lines.append(f"| {judge.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def check() -> None:
    """If all fit in one set, the winner-only algorithms ask the same sets, so one row is for all."""
    for judge in JUDGES:
        for votes in (1, 3):
            for seed in range(20):
                found = {play(asked(name, votes), judge, seed) for name in ("tournament", "heapsort", "ahead")}
                if len(found) > 1:
                    raise SystemExit(f"not the same: {judge}, {votes} votes, seed {seed}")


def report() -> str:
    return f"""# One round of ballots against a tournament

Made by `python -m bench.ballot > bench/ballot.md`.

{SETTING}: means over {CASES} seeded cases.

nDCG@5 has gains 5, 4, 3, 2, 1 for the true top 5; recall@5 is the share of the true top 5 found. A judge of noise b
names a passage with odds that fall by e every b true places, drawn for each answer. One that likes the first (the last)
sees a passage 0.25 places worse (better) for each place down the prompt, 4.75 from end to end. One that is wrong by 2
has each passage wrong by N(0, 2) places whenever it is asked; greedy, it has no other noise, and more noise is the same
model at a higher temperature.

## What they cost

{cost()}

## Winners: nDCG@5

{quality("ndcg", WINNERS)}

## Winners: recall@5

{quality("recall", WINNERS)}

## Winners: how many ballots are as good as a tournament

The fewest of {", ".join(map(str, MORE))} whose mean is less than {NEAR} below the tournament's, and that mean.

{equals("ndcg").replace("ndcg", "nDCG")}

{equals("recall")}

## Whole orders: nDCG@5

One listwise answer ranks all 20, so `window` is a single comparison here, and with votes a ballot in fresh orders.

{quality("ndcg", ORDERS)}

{NOTES.read_text(encoding="utf-8")}"""


def main() -> None:
    global CASES
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help="cases a figure (default: %(default)s)")
    CASES = parser.parse_args().cases
    check()
    print(report(), end="")


if __name__ == "__main__":
    main()
