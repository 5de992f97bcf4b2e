"""Bubblesort with sets: the best bubbles up from the back, one set after another, once for each of the k places.

Knows which sets of an earlier pass still hold. The reference implementation of the setwise paper guesses that, and at
size 20 loses passages of the top k.

Heapsort with sets: a set is a node of the heap with its children, `size - 1` of them.

Knows the shape of the heap, and which of its sets do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from rankr1_rag.selection.rounds import Part, Selection, best, checked, together


def heapsort(n: int, k: int, size: int) -> Selection:
    """The k best by setwise heapsort (arXiv 2310.09497, §3.2), the algorithm of the Rank-R1 paper (arXiv 2503.06034).

    Two departures, neither of which changes the result: the heap is built level by level, all nodes of a level side by
    side, and the k-th best is taken without mending the heap below it. Sets of two make a binary heap.
    """
    return _heapsort(n, checked(n, k, size), size)


def _heapsort(n: int, k: int, size: int) -> Selection:
    heap = list(range(n))
    for level in reversed(list(_levels(n, _children(size)))):
        yield from together([_sift(heap, node, size) for node in level])
    chosen = heap[: min(k, 1)]
    while len(chosen) < k:
        last = heap.pop()
        heap[0] = last
        if len(chosen) == k - 1:
            chosen.append((yield from _best_of_family(heap, 0, size)))
        else:
            yield from _sift(heap, 0, size)
            chosen.append(heap[0])
    return chosen


def _children(size: int) -> int:
    return max(2, size - 1)


def _levels(n: int, children: int) -> Iterator[range]:
    """The nodes with children, level by level from the root."""
    start, stop, parents = 0, 1, (n - 2) // children + 1
    while start < parents:
        yield range(start, min(stop, parents))
        start, stop = stop, children * stop + 1


def _sift(heap: list[int], node: int, size: int) -> Part[None]:
    """Let the position at `node` sink until none of its children is better."""
    while (first := _children(size) * node + 1) < len(heap):
        winner = yield from _best_of_family(heap, node, size)
        if winner == heap[node]:
            return
        child = heap.index(winner, first)
        heap[node], heap[child] = winner, heap[node]
        node = child


def _best_of_family(heap: list[int], node: int, size: int) -> Part[int]:
    """The best of a node and its children; of three with sets of two, the children play first."""
    first = _children(size) * node + 1
    family = heap[first : first + _children(size)]
    if len(family) == size:
        family = [(yield from best(family))]
    return (yield from best([heap[node], *family]))


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
