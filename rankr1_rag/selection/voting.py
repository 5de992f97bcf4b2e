"""A ballot: one round for a set that fits one prompt, the same prompt answered many times over, ranked by votes.

Knows how answers to one set become an order. Must not know why they differ: that takes a judge who draws its answers
(a temperature above 0), since one who always says the same can only name its first.

Several votes on each set, each in another order, so that where a passage stands in the prompt matters less.

Knows sets and answers. Must not know how the sets came about; and draws from no random state but its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from random import Random

from rankr1_rag.selection.rounds import Answer, Done, Selection, Set, ask, checked, named, step


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


def ballot(n: int, k: int, size: int, ballots: int) -> Selection:
    """The k with the most votes of `ballots` answers to all n candidates, shown in first-stage order, in one round.

    Listwise answers are counted after Borda, as `voted` does; ties, among those without votes too, go to the
    first-stage best. ValueError where n is more than `size`.

    Not exact: a judge who is sure votes for one position only, and the other places stay the first stage's. The prompt
    is the same each time, so that a backend with a prefix cache reads it once; what the judge holds of a passage's
    place in the prompt is in every vote. `voted(ballot(n, k, size, 1), ballots, seed)` shows fresh orders instead, and
    pays for the reading. Both are measured in bench/ballot.md.
    """
    if ballots < 1:
        raise ValueError(f"ballots, how often the set is asked, must be at least 1, not {ballots}")
    wanted = checked(n, k, size)
    if n > size:
        raise ValueError(
            f"n, the number of candidates, must be at most {size}, the size of a set that fits one prompt, not {n}: "
            "rerank fewer candidates, or use another algorithm"
        )
    return _ballot(n, wanted, ballots)


def _ballot(n: int, k: int, ballots: int) -> Selection:
    shown = tuple(range(n))
    if n < 2:
        return list(shown)
    answers = yield from ask([shown] * ballots)
    order = borda([tuple(named(shown, answer)) for answer in answers], n)
    return list(dict.fromkeys((*order, *shown)))[:k]
