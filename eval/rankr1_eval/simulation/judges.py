"""Simulated judges: who answers the sets of a selection, and what is wrong with the answers.

A judge is told what each candidate is worth to the one who asks, its *utility*: its grade, and within the grade a
hidden preference (`utilities`). An answer depends on the judge, the seed, the set as shown and, where noise is drawn
anew, on how often that very set was asked before; on nothing else, no global random state, no other query or
algorithm. Judges of equal noise draw equal noise, so that what differs between two of them is the judge.

Knows positions and numbers. Must not know qrels, runs or algorithms.

The queries of a study: each with its candidates in first-stage order and their grades.

Knows runs and qrels. Must not know judges or algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import FilePath
from rankr1_rag.io.trec import Qrels, read_qrels, read_run
from rankr1_rag.selection import Answer, Set


@dataclass(frozen=True, slots=True)
class Case:
    """A query: the ids of its candidates, first-stage best first, and their grades; 0 where there is no judgement.

    A grade below 0, as some qrels have for junk, is 0: to trec_eval too it is nothing gained.
    """

    query: str
    ids: tuple[str, ...]
    grades: tuple[int, ...]


def cases(run: FilePath, qrels: FilePath, depth: int) -> tuple[list[Case], Qrels, list[str]]:
    """The queries of the run in file order with their best `depth` candidates; the qrels; the judged queries that the
    run does not rank, which the study leaves out.

    FileError where the qrels have no judgement of a query of the run, or a file is malformed.
    """
    ranked, judged = read_run(run, depth), read_qrels(qrels)
    if unjudged := [query for query in ranked if query not in judged]:
        more = f" and {len(unjudged) - 1} more" if len(unjudged) > 1 else ""
        problem = f"no judgement of query {unjudged[0]!r}{more} of {run}: take these out of the run, or give its qrels"
        raise FileError(qrels, None, problem)
    made = [_case(query, [passage.id for passage in best], judged[query]) for query, best in ranked.items()]
    return made, {query: judged[query] for query in ranked}, [query for query in judged if query not in ranked]


def _case(query: str, ids: list[str], judgements: dict[str, int]) -> Case:
    return Case(query, tuple(ids), tuple(max(0, judgements.get(id, 0)) for id in ids))


Opinion = Callable[[Set, int], Answer]
"""A judge at one query: a set as it is shown, and how often it was asked before, to all its positions, best first."""

WITHIN_A_GRADE = 0.5
"""How far apart the passages of one grade may lie, in grades; so much, at least, lies between two grades."""


class Judge(Protocol):
    """What can answer the sets of a query."""

    def opinion(self, utilities: Sequence[float], seed: str) -> Opinion:
        """How it answers at the query whose candidates have these utilities, by position."""
        ...


def utilities(grades: Sequence[int], seed: str) -> list[float]:
    """Grade + U(0, 0.5): of two passages of a grade one is better, and the first stage knows nothing of which."""
    dice = Random(f"utility {seed}")
    return [grade + WITHIN_A_GRADE * dice.random() for grade in grades]


def _first(place: float) -> float:
    return -place


def _last(place: float) -> float:
    return place - 1


def _ends(place: float) -> float:
    return abs(2 * place - 1) - 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """A Plackett-Luce judge: the order of utility + noise * Gumbel noise, drawn anew for each comparison.

    So the odds of naming the better of two passages first are exp(difference / noise). `liking` tells how much worse a
    passage seems by its place in the prompt, from 0 for the first to 1 for the last of the set: between 0 and -1, times
    `bias`.
    """

    noise: float = 0.0
    bias: float = 0.0
    liking: Callable[[float], float] = _first

    def opinion(self, utilities: Sequence[float], seed: str) -> Opinion:
        """See `Judge`."""

        def answer(shown: Set, before: int) -> Answer:
            worth = [utilities[position] for position in shown]
            if self.bias:
                worth = [one + self.bias * self.liking(i / (len(shown) - 1)) for i, one in enumerate(worth)]
            if self.noise:
                dice = Random(f"{seed} {before} {shown}")
                worth = [one + self.noise * _gumbel(dice) for one in worth]
            return _by(shown, worth)

        return answer


@dataclass(frozen=True, slots=True)
class Circular:
    """A judge whose preferences go round in circles: for each pair drawn once, and kept whenever it is asked.

    The better of a pair is preferred with odds exp(difference / noise), as by `Drawn`. A set is ordered by Copeland
    score: how many of the set a passage is preferred to. Ties go to whichever a lot, drawn once a passage, puts first.
    """

    noise: float

    def opinion(self, utilities: Sequence[float], seed: str) -> Opinion:
        """See `Judge`."""
        beats, lots = self._preferences(utilities, Random(f"pairs {seed}"))

        def answer(shown: Set, before: int) -> Answer:
            members = sum(1 << position for position in shown)
            return _by(shown, [(beats[position] & members).bit_count() + lots[position] for position in shown])

        return answer

    def _preferences(self, utilities: Sequence[float], dice: Random) -> tuple[list[int], list[float]]:
        """For each position the positions it is preferred to, as bits, and its lot, in [0, 1)."""
        beats = [0] * len(utilities)
        for one, worth in enumerate(utilities):
            for other in range(one):
                winner, loser = (one, other) if self._prefers(worth - utilities[other], dice.random()) else (other, one)
                beats[winner] |= 1 << loser
        return beats, [dice.random() for _ in utilities]

    def _prefers(self, difference: float, drawn: float) -> bool:
        if not self.noise:
            return difference > 0
        return drawn < 0.5 * (1 + math.tanh(difference / self.noise / 2))


def _gumbel(dice: Random) -> float:
    return -math.log(-math.log(1 - dice.random()) or 5e-324)


def _by(shown: Set, worth: Sequence[float]) -> Answer:
    order = sorted(range(len(shown)), key=worth.__getitem__, reverse=True)
    return tuple(shown[place] for place in order)


_KINDS: Mapping[str, tuple[int, Callable[..., Judge], str]] = {
    "perfect": (0, Drawn, "always right"),
    "noisy": (1, Drawn, "noise {}"),
    "first": (2, lambda bias, noise: Drawn(noise, bias, _first), "noise {1}, likes the first by {0}"),
    "last": (2, lambda bias, noise: Drawn(noise, bias, _last), "noise {1}, likes the last by {0}"),
    "ends": (2, lambda bias, noise: Drawn(noise, bias, _ends), "noise {1}, likes both ends by {0}"),
    "circular": (1, Circular, "pairs drawn once, noise {}"),
}
GRAMMAR = "perfect, noisy:NOISE, first:BIAS:NOISE, last:BIAS:NOISE, ends:BIAS:NOISE, circular:NOISE"

JUDGES = (
    "perfect",
    "noisy:0.25",
    "noisy:0.5",
    "noisy:1",
    "first:2:0.5",
    "last:2:0.5",
    "ends:2:0.5",
    "circular:1",
    "circular:2",
)
"""The judges of the study by default. Noise and bias in grades."""


def judges_named(names: Sequence[str]) -> dict[str, Judge]:
    """The judges of these names, by name. ValueError on an unknown name, a name twice, or none."""
    return {name: judge_named(name) for name in distinct("judge", names)}


def judge_named(name: str) -> Judge:
    """The judge of this name, a kind and its numbers: see GRAMMAR. ValueError where there is none."""
    kind, *fields = name.split(":")
    wanted, make, _ = _KINDS.get(kind, (-1, Drawn, ""))
    if wanted != len(fields):
        raise ValueError(f"no judge is called {name!r}: there are {GRAMMAR}")
    return make(*(_number(name, field) for field in fields))


def described(name: str) -> str:
    """What is wrong with the judge of this name, in a few words."""
    kind, *fields = name.split(":")
    return _KINDS[kind][2].format(*fields)


def _number(name: str, field: str) -> float:
    try:
        number = float(field)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1000:
        raise ValueError(f"judge {name!r}: {field!r} is not a number from 0 to 1000, in grades")
    return number


def distinct(what: str, names: Sequence[str]) -> Sequence[str]:
    """The names. ValueError where there is none, or one twice."""
    if not names:
        raise ValueError(f"no {what} is given: name one at least")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{what} {twice[0]!r} is given twice: once is enough")
    return names
