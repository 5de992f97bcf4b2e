"""Several votes on each set in new orders (`voted`), or the means of scores (`scores`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import factorial, inf
from random import Random
from typing import Any

from rankr1_rag.selection.rounds import Answer, Done, Selection, Set, checked, step


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


@partial(checked, least=1)
def scores(n: int, k: int, size: int, chosen: list[int] | None = None, *, epochs: int = 1, seed: int = 0) -> Selection:
    """The k with the highest mean of the scores that a judge of scores gives, in one round.

    In each of the epochs every position is in one set; the sets are of nearly equal sizes, and shuffled by `seed` if
    they hold more than one position. It is sent `Scores` in place of answers. Ties go to the first-stage best; a
    position without a score comes behind those that have one.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1 (got {epochs})")
    sets: list[Set] = []
    for epoch in range(epochs if n else 0):
        order = Random(f"{seed} {epoch}").sample(range(n), n) if size > 1 else range(n)
        number = -(-n // size)
        sets += [tuple(order[place::number]) for place in range(number)]
    answers: list[Any] = (yield sets) if sets else []
    if len(answers) != len(sets):
        raise ValueError(f"a round of {len(sets)} sets was sent {len(answers)} answers: send one a set, in order")
    found: list[list[float]] = [[] for _ in range(n)]
    for shown, answer in zip(sets, answers, strict=True):
        if strangers := answer.keys() - {*shown}:
            raise ValueError(f"the scores of the set {shown} name {sorted(strangers)}, not in the set")
        for position, score in answer.items():
            found[position].append(score)
    order = sorted(range(n), key=[-sum(own) / len(own) if own else inf for own in found].__getitem__)
    chosen = [] if chosen is None else chosen
    chosen += order[:k]
    return chosen
