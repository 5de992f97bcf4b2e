"""Several votes on each set in new orders (`voted`), or many votes on one set of all candidates (`ballot`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from random import Random

from rankr1_rag.selection.rounds import Answer, Done, Selection, Set, ask, checked, named, step


def voted(selection: Selection, votes: int, seed: int) -> Selection:
    """The same selection with `votes` votes on each set in one round: first as it is, then in new orders.

    The selection is sent the majority's answer, ties going to the first-stage best. Of listwise answers it is the Borda
    order: a position scores the number of positions of its set not placed before it, or nothing if it is not named.
    (For answers of one position the two are the same.) The orders depend on `seed`, the set and the number of its round
    alone.
    """
    if votes < 1:
        raise ValueError(f"votes must be at least 1 (got {votes})")
    return selection if votes == 1 else counted(selection, votes, seed)


def counted(selection: Selection, votes: int, seed: int) -> Selection:
    """`voted` for two votes or more."""
    state, number = step(selection), 0
    while not isinstance(state, Done):
        ballots = [orders(shown, votes, f"{seed} {number} {shown}") for shown in state]
        answers = yield [order for ballot in ballots for order in ballot]
        if len(answers) != votes * len(ballots):
            raise ValueError(f"a round of {votes * len(ballots)} sets was sent {len(answers)} answers")
        results = [borda(answers[i : i + votes], len(state[i // votes])) for i in range(0, len(answers), votes)]
        state, number = step(selection, results), number + 1
    return state.value


def orders(shown: Set, votes: int, seed: str) -> list[Set]:
    """The orders of a set for `votes` ≥ 1 votes: as it is, then shuffled; no order twice before all were used."""
    orders, random = [shown], Random(seed)
    while len(orders) < votes:
        order = tuple(random.sample(shown, len(shown)))
        if order not in orders or len(orders) >= factorial(len(shown)):
            orders.append(order)
    return orders


def borda(answers: Sequence[Answer], size: int) -> Answer:
    """All positions that were named, by points, then in first-stage order."""
    points: dict[int, int] = {}
    for answer in answers:
        for place, position in enumerate(answer):
            points[position] = points.get(position, 0) + size - place
    return tuple(sorted(points, key=lambda position: (-points[position], position)))


@checked
def ballot(n: int, k: int, size: int, ballots: int) -> Selection:
    """The k with the most votes of `ballots` answers to all n candidates, shown in first-stage order, in one round.

    Listwise answers are counted after Borda, as `voted` does; ties, also of positions without votes, go to the
    first-stage best. ValueError if n is more than `size`.

    Not exact: a judge that is sure votes for one position only, and the others keep their first-stage order. The prompt
    is the same each time, so that a backend with a prefix cache reads it once; a bias for a place in the prompt is in
    every vote. `voted(ballot(n, k, size, 1), ballots, seed)` shows new orders instead, and pays for the reading. Both
    are measured in bench/ballot.md.
    """
    if ballots < 1:
        raise ValueError(f"ballots must be at least 1 (got {ballots})")
    if n > size:
        raise ValueError(
            f"a ballot needs at most {size} candidates, the set size (got {n}): rerank fewer candidates, or use "
            "another algorithm"
        )
    return ballot_round(n, k, ballots)


def ballot_round(n: int, k: int, ballots: int) -> Selection:
    """`ballot` of checked arguments."""
    shown = tuple(range(n))
    if n < 2:
        return list(shown)
    answers = yield from ask([shown] * ballots)
    order = borda([tuple(named(shown, answer)) for answer in answers], n)
    return list(dict.fromkeys((*order, *shown)))[:k]
