"""Several votes on each set, each in another order, so that where a passage stands in the prompt matters less.

Knows sets and answers. Must not know how the sets came about; and draws from no random state but its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from random import Random

from rankr1_rag.selection.parts import Answer, Done, Selection, Set, step


def voted(selection: Selection, votes: int, seed: int) -> Selection:
    """The same selection with each set asked `votes` times in the same round: first as given, then in fresh orders.

    The answer the selection sees is the majority's, ties going to the first-stage best. Of listwise answers it is the
    Borda order: a position scores the number of positions of its set not placed before it, or nothing where it is not
    named. (For answers of one position the two are the same.) The orders depend on `seed`, the set and the number of
    its round alone.
    """
    if votes < 1:
        raise ValueError(f"votes, how often each set is asked, must be at least 1, not {votes}")
    return selection if votes == 1 else _voted(selection, votes, seed)


def _voted(selection: Selection, votes: int, seed: int) -> Selection:
    state, number = step(selection), 0
    while not isinstance(state, Done):
        ballots = [orders(shown, votes, f"{seed} {number} {shown}") for shown in state]
        answers = yield [order for ballot in ballots for order in ballot]
        if len(answers) != votes * len(ballots):
            raise ValueError(f"a round of {votes * len(ballots)} sets was sent {len(answers)} answers")
        counted = [borda(answers[i : i + votes], len(state[i // votes])) for i in range(0, len(answers), votes)]
        state, number = step(selection, counted), number + 1
    return state.value


def orders(shown: Set, votes: int, seed: str) -> list[Set]:
    """How a set is shown to `votes` ≥ 1 votes: as given, then shuffled anew; no order twice before all were used."""
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
