"""Scores from votes and label probabilities, and the fusion of a result with the order of retrieval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Literal, Protocol, TypeVar

Meaning = Literal["score", "probability", "votes", "ordinal"]

ORDINAL_PART = 0.01
"""The part of a score that separates ranks with equal probabilities or votes."""


class Vote(Protocol):
    """The part of a comparison that scores are made of; comparisons of one set in one round are votes on it."""

    @property
    def set(self) -> tuple[int, ...]:
        """Positions in shown order."""

    @property
    def answer(self) -> tuple[int, ...]:
        """Positions, best first."""

    @property
    def round(self) -> int:
        """Counted from 0."""

    @property
    def probabilities(self) -> tuple[float, ...] | None:
        """One for each of the set."""

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The model's own scores along the set; () if it gives none."""


J = TypeVar("J", bound=Vote)


def meaning(trace: Sequence[Vote]) -> Meaning:
    """What scores can mean: "probability" with label probabilities, "votes" if a set was compared more than once.

    "score" if the model gives scores itself.
    """
    if any(comparison.scores for comparison in trace):
        return "score"
    if any(comparison.probabilities is not None for comparison in trace):
        return "probability"
    if any(len(comparison.answer) > 1 for comparison in trace):
        return "ordinal"  # listwise answers are no votes for one
    return "votes" if len(decisions(trace)) < len(trace) else "ordinal"


def scores(n: int, chosen: Sequence[int], trace: Sequence[Vote]) -> tuple[float, ...]:
    """A score for each of n ranks, of which `chosen` are the first: strictly decreasing, in (0, 1].

    For a chosen position it is its share, or the mean of the model's own scores, at most that of the rank above; for
    the others 0; all blended with 0.01 of (n - rank + 1) / n. Without shares it is that alone.
    """
    ordinal, kind = [(n - place) / n for place in range(n)], meaning(trace)
    if kind == "ordinal":
        return tuple(ordinal)
    own = means(trace)
    share: Callable[[int], float] = (
        Outcomes(trace).share if kind != "score" else lambda position: own.get(position, 0.0)
    )
    found, least = [], 1.0
    for place, part in enumerate(ordinal):
        least = min(least, share(chosen[place])) if place < len(chosen) else 0.0
        found.append((1 - ORDINAL_PART) * least + ORDINAL_PART * part)
    return tuple(found)


def means(trace: Sequence[Vote]) -> dict[int, float]:
    """The mean of the model's own scores of each position that has one, in the last round that showed it.

    (Of several hops each round shows other passages as known, so that their scores are not of one kind.)
    """
    found: dict[int, tuple[int, list[float]]] = {}
    for comparison in sorted(trace, key=lambda one: one.round):
        for position, score in zip(comparison.set, comparison.scores, strict=False):
            before = found.get(position)
            own = before[1] if before and before[0] == comparison.round else []
            found[position] = comparison.round, own if score is None else [*own, score]
    return {position: sum(own) / len(own) for position, (_, own) in found.items() if own}


class Outcomes(Generic[J]):
    """The outcomes of a trace by position: `seen` counts its comparisons, `won` those whose answer begins with it.

    `means` are the model's own scores.

    One pass over the trace, linear in the passages shown; then each position takes the time of one decision.
    """

    def __init__(self, trace: Sequence[J]) -> None:
        decided = decisions(trace)
        self._last = {position: votes for votes in decided for position in votes[0].set}
        self._won = {winner(votes): votes for votes in decided}
        self._shown = {position: comparison for comparison in trace for position in comparison.set}
        self._named = {comparison.answer[0]: comparison for comparison in trace}
        self.means, self._scored = means(trace), dict[int, J]()
        for comparison in trace if self.means else ():
            own = zip(comparison.set, comparison.scores, strict=False)
            self._scored |= {position: comparison for position, score in own if score is not None}
        self.seen = Counter(chain.from_iterable([set(comparison.set) for comparison in trace]))
        self.won = Counter([comparison.answer[0] for comparison in trace])

    def share(self, position: int) -> float:
        """The mean probability, or the share of the votes, of a position in the last set that it won, or was shown in.

        1 for a position that was never shown: it was the only one left.
        """
        votes = self._won.get(position) or self._last.get(position)
        if votes is None:
            return 1.0
        known = [probability(position, one) for one in votes if one.probabilities is not None]
        return sum(known) / len(known) if known else sum(one.answer[0] == position for one in votes) / len(votes)

    def deciding(self, position: int) -> J | None:
        """The comparison that explains the rank of a position best.

        Of the votes on the last set that it won the last that names it, or the one with its highest probability; else
        the last comparison that names it, or that shows it; None if it was never shown. Of a model that gives scores
        the last with a score of its last round, or else the last that shows it.
        """
        if (last := self._shown.get(position)) is not None and last.scores:
            return self._scored[position] if position in self.means else last
        votes = self._won.get(position)
        if votes is None:
            return self._named.get(position) or self._shown.get(position)
        named = [vote for vote in votes if vote.answer[0] == position]
        return named[-1] if named else max(votes, key=lambda vote: probability(position, vote))


def decisions(trace: Sequence[J]) -> list[list[J]]:
    """The comparisons grouped by decision: those of one set in one round are votes on it."""
    found: dict[tuple[int, frozenset[int]], list[J]] = {}
    for comparison in trace:
        found.setdefault((comparison.round, frozenset(comparison.set)), []).append(comparison)
    return list(found.values())


def winner(votes: Sequence[Vote]) -> int:
    """The position with the highest probability over these votes on a set, or else with most votes; ties: the first."""
    weights = dict.fromkeys(votes[0].set, 0.0)
    probable = any(vote.probabilities is not None for vote in votes)
    for vote in votes:
        if not probable:
            weights[vote.answer[0]] += 1.0
        for position, mass in zip(vote.set, vote.probabilities or (), strict=False):
            weights[position] += mass
    most = max(weights.values())
    return min([position for position, weight in weights.items() if weight == most])


def probability(position: int, vote: Vote) -> float:
    """The probability of a position in one vote; 0 if unknown."""
    return vote.probabilities[vote.set.index(position)] if vote.probabilities is not None else 0.0


def fused(order: tuple[int, ...], constant: float, ranks: Sequence[int] | None = None) -> tuple[int, ...]:
    """Reciprocal-rank fusion of an order with the order of retrieval (Cormack et al., SIGIR 2009, with 60).

    `ranks`: the rank of each position, from 1, in the retrieval that found it (default: the first-stage order).
    """
    found = range(1, len(order) + 1) if ranks is None else ranks
    sums = {p: 1 / (constant + rank) + 1 / (constant + found[p]) for rank, p in enumerate(order, 1)}
    return tuple(sorted(order, key=sums.__getitem__, reverse=True))


@dataclass(slots=True)
class Trend:
    """How first-stage scores run along their candidates, for which the greatest score should be the best."""

    rising: int = 0
    falling: int = 0
    ranked: bool = True
    _last: tuple[float, int | None] | None = None

    def add(self, score: float, rank: int | None = None) -> None:
        """Add the score of the next candidate, which may be anywhere if it has a rank."""
        if self._last is not None:
            before, rank_before = self._last
            self.ranked &= rank is not None and rank != rank_before
            back = rank is not None and rank_before is not None and rank < rank_before
            self.rising += score < before if back else score > before
            self.falling += score > before if back else score < before
        self._last = score, rank

    def contradiction(self, distances: bool = False) -> str:
        """The problem of a first stage whose scores, or negated distances, contradict its order; else ""."""
        if self.rising > 4 * self.falling:  # some neighbours may differ where all is reversed
            moves, kind = ("fall", "similarities") if distances else ("rise", "distances")
            return f"its first-stage scores {moves} from the first candidate to the last, as {kind} do"
        return "its first-stage scores are not in the order of its candidates" if self.rising and self.ranked else ""
