"""Heapsort with sets: a set is a node of the heap with its children, `size - 1` of them.

Knows the shape of the heap, and which of its sets do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from rankr1_rag.selection.parts import Part, Selection, best, checked, together


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
