"""What comparisons say of how sure a selection was: the share that each selected position had where it last won.

Knows sets, answers and probabilities by position; knows nothing of texts and models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

Meaning = Literal["probability", "votes", "ordinal"]

ORDINAL_PART = 0.01
"""The part of a score that only keeps ranks apart where probabilities or votes do not."""


class Judged(Protocol):
    """A comparison, as far as it matters here."""

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


def meaning(trace: Sequence[Judged]) -> Meaning:
    """What scores can say: "probability" where labels have one, "votes" where a set was asked several times over."""
    if any(comparison.probabilities is not None for comparison in trace):
        return "probability"
    if any(len(comparison.answer) > 1 for comparison in trace):
        return "ordinal"  # listwise answers are no votes for one
    asked = [(comparison.round, frozenset(comparison.set)) for comparison in trace]
    return "votes" if len(set(asked)) < len(asked) else "ordinal"


def scores(n: int, chosen: Sequence[int], trace: Sequence[Judged]) -> tuple[float, ...]:
    """A score for each of n ranks, of which `chosen` are the first: strictly decreasing, in (0, 1].

    Of a chosen position it is its share where it last won, at most that of the rank above; of the others 0; all
    blended with 0.01 of (n - rank + 1) / n. Without shares it is that alone.
    """
    ordinal = [(n - place) / n for place in range(n)]
    if meaning(trace) == "ordinal":
        return tuple(ordinal)
    found, least = [], 1.0
    for place, part in enumerate(ordinal):
        least = min(least, share(chosen[place], trace)) if place < len(chosen) else 0.0
        found.append((1 - ORDINAL_PART) * least + ORDINAL_PART * part)
    return tuple(found)


def share(position: int, trace: Sequence[Judged]) -> float:
    """The mean probability, or the share of the votes, that a position had where it last won, or else was last shown.

    1 for one that was never shown: it was the only one left.
    """
    shown = [comparison for comparison in trace if position in comparison.set]
    won = [comparison for comparison in shown if comparison.answer[0] == position]
    if not shown:
        return 1.0
    last = (won or shown)[-1]
    key = (last.round, frozenset(last.set))
    votes = [one for one in trace if one.round == last.round and (one.round, frozenset(one.set)) == key]
    known = [one.probabilities[one.set.index(position)] for one in votes if one.probabilities is not None]
    return sum(known) / len(known) if known else sum(one.answer[0] == position for one in votes) / len(votes)
