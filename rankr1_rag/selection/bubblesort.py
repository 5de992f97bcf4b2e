"""Bubblesort with sets: the best bubbles up from the back, one set after another, once for each of the k places.

Knows which sets of an earlier pass still hold. The reference implementation of the setwise paper guesses that, and at
size 20 loses passages of the top k.
"""

from __future__ import annotations

from itertools import pairwise

from rankr1_rag.selection.parts import Selection, best, checked


def bubblesort(n: int, k: int, size: int) -> Selection:
    """The k best by setwise bubblesort (arXiv 2310.09497, §3.2), at every set size.

    The order is cut, from the back, into sets that share their borders. A border is *settled* while its position is
    known to be the best of all behind it, so that a pass starts at the foremost settled border.
    """
    return _bubblesort(n, checked(n, k, size), size)


def _bubblesort(n: int, k: int, size: int) -> Selection:
    order = list(range(n))
    settled = set[int]()
    for place in range(k):
        borders = [*range(n - 1, place, 1 - size), place]
        start = max((i for i, border in enumerate(borders) if border in settled), default=0)
        for back, front in pairwise(borders[start:]):
            winner = yield from best(order[front : back + 1])
            found = order.index(winner, front)
            order[front], order[found] = winner, order[front]
            settled.add(front)
            if found == back:
                settled.discard(back)
    return order[:k]
