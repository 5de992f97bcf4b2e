"""The queries of a study with graded candidates, and simulated judges that answer sets of them, some with errors.

A judge sees the *utility* of each candidate: its grade and, within the grade, a hidden preference (`utilities`). An
answer depends on the judge, the seed, the set as shown and, for noise that is drawn each time, on how often that set
was asked before. Judges of equal noise draw equal noise, so that any difference between two of them is the judge's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import FilePath
from rankr1_rag.io.trec import Qrels, read_qrels, read_run
from rankr1_rag.selection import Answer, Set

Opinion = Callable[[Set, int], Answer]
"""A judge at one query: a set as shown, and how often it was asked before → all its positions, best first."""
Judge = Callable[[Sequence[float], str], Opinion]
"""The utilities of a query's candidates, by position, and a seed → the judge at that query."""
WITHIN_A_GRADE = 0.5
"""The greatest distance between utilities of one grade, in grades; the least between two grades."""
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
"""The judges of the study by default; noise and bias in grades."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """The ids of a query's candidates, first-stage best first, and their grades; 0 for unjudged and for junk."""

    query: str
    ids: tuple[str, ...]
    grades: tuple[int, ...]


def judged_queries(run: FilePath, qrels: FilePath, depth: int) -> tuple[list[JudgedQuery], Qrels, list[str]]:
    """The queries of the run in file order with their best `depth` candidates; their qrels; the judged queries that the
    run does not rank, which the study leaves out.

    FileError if the qrels have no judgement of a query of the run, or a file is malformed.
    """
    ranked, judged = read_run(run, depth), read_qrels(qrels)
    if unjudged := [query for query in ranked if query not in judged]:
        more = f" and {len(unjudged) - 1} more" if len(unjudged) > 1 else ""
        problem = f"no judgement of query {unjudged[0]!r}{more} of {run}: take these out of the run, or give its qrels"
        raise FileError(qrels, None, problem)
    queries = []
    for query, best in ranked.items():
        ids = tuple(passage.id for passage in best)
        queries.append(JudgedQuery(query, ids, tuple(max(0, judged[query].get(id, 0)) for id in ids)))
    return queries, {query: judged[query] for query in ranked}, [query for query in judged if query not in ranked]


def utilities(grades: Sequence[int], seed: str) -> list[float]:
    """Grade + U(0, 0.5): one of two passages of a grade is better, and the first stage does not know which."""
    dice = Random(f"utility {seed}")
    return [grade + WITHIN_A_GRADE * dice.random() for grade in grades]


def ordered(shown: Set, worth: Sequence[float]) -> Answer:
    """The set by worth, greatest first."""
    return tuple(shown[place] for place in sorted(range(len(shown)), key=worth.__getitem__, reverse=True))


def noisy(noise: float = 0.0, bias: float = 0.0, liking: Callable[[float], float] = float) -> Judge:
    """A Plackett-Luce judge: the order of utility + noise * Gumbel noise, drawn for each comparison.

    So the odds of naming the better of two passages first are exp(difference / noise). `liking` is how much worse a
    passage seems by its place in the prompt, from 0 for the first to 1 for the last: 0 to -1, times `bias`.
    """

    def at_query(worths: Sequence[float], seed: str) -> Opinion:
        def answer(shown: Set, before: int) -> Answer:
            worth = [worths[position] for position in shown]
            if bias:
                worth = [one + bias * liking(i / (len(shown) - 1)) for i, one in enumerate(worth)]
            if noise:
                dice = Random(f"{seed} {before} {shown}")
                worth = [one - noise * math.log(-math.log(1 - dice.random()) or 5e-324) for one in worth]
            return ordered(shown, worth)

        return answer

    return at_query


def circular(noise: float) -> Judge:
    """A judge with circular preferences: for each pair drawn once, and kept whenever it is asked.

    The better of a pair is preferred with odds exp(difference / noise), as by `noisy`. A set is ordered by Copeland
    score: the number of its passages that a passage is preferred to. Ties go by lots, drawn once a passage.
    """

    def at_query(worths: Sequence[float], seed: str) -> Opinion:
        dice = Random(f"pairs {seed}")
        beats = [0] * len(worths)  # by position, the positions it is preferred to, as bits
        for one, worth in enumerate(worths):
            for other in range(one):
                drawn, difference = dice.random(), worth - worths[other]
                prefers = drawn < 0.5 * (1 + math.tanh(difference / noise / 2)) if noise else difference > 0
                winner, loser = (one, other) if prefers else (other, one)
                beats[winner] |= 1 << loser
        lots = [dice.random() for _ in worths]

        def answer(shown: Set, before: int) -> Answer:
            members = sum(1 << position for position in shown)
            return ordered(shown, [(beats[position] & members).bit_count() + lots[position] for position in shown])

        return answer

    return at_query


_KINDS: Mapping[str, tuple[int, Callable[..., Judge], str]] = {
    "perfect": (0, noisy, "always right"),
    "noisy": (1, noisy, "noise {}"),
    "first": (2, lambda bias, noise: noisy(noise, bias, lambda x: -x), "noise {1}, likes the first by {0}"),
    "last": (2, lambda bias, noise: noisy(noise, bias, lambda x: x - 1), "noise {1}, likes the last by {0}"),
    "ends": (
        2,
        lambda bias, noise: noisy(noise, bias, lambda x: abs(2 * x - 1) - 1),
        "noise {1}, likes both ends by {0}",
    ),
    "circular": (1, circular, "pairs drawn once, noise {}"),
}
GRAMMAR = "perfect, noisy:NOISE, first:BIAS:NOISE, last:BIAS:NOISE, ends:BIAS:NOISE, circular:NOISE"


def judges_named(names: Sequence[str]) -> dict[str, Judge]:
    """The judges of these names, by name. ValueError for an unknown name, a name twice, or none."""
    return {name: judge_named(name) for name in distinct("judge", names)}


def judge_named(name: str) -> Judge:
    """The judge of this name, a kind and its numbers: see GRAMMAR. ValueError for any other name."""
    kind, *fields = name.split(":")
    wanted, make, _ = _KINDS.get(kind, (-1, noisy, ""))
    if wanted != len(fields):
        raise ValueError(f"no judge is called {name!r}: there are {GRAMMAR}")
    numbers = []
    for field in fields:
        try:
            number = float(field)
        except ValueError:
            number = math.nan
        if not 0 <= number <= 1000:
            raise ValueError(f"judge {name!r}: {field!r} is not a number from 0 to 1000, in grades")
        numbers.append(number)
    return make(*numbers)


def described(name: str) -> str:
    """The errors of the judge of this name, in a few words."""
    kind, *fields = name.split(":")
    return _KINDS[kind][2].format(*fields)


def distinct(what: str, names: Sequence[str]) -> Sequence[str]:
    """The names. ValueError if there is none, or one twice."""
    if not names:
        raise ValueError(f"no {what} is named: name one at least")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{what} {twice[0]!r} is named twice: once is enough")
    return names
