"""Sorting with sets in place of pairs: heapsort, bubblesort and, for listwise answers, a sliding window."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from rankr1_rag.selection.rounds import Part, Selection, ask, best, checked, named, together


@checked
def heapsort(n: int, k: int, size: int, chosen: list[int] | None = None) -> Selection:
    """The k best by setwise heapsort (arXiv 2310.09497, §3.2), the algorithm of the Rank-R1 paper (arXiv 2503.06034).

    Two departures, neither of which changes the result: the heap is built level by level, all nodes of a level at once,
    and the k-th best is taken without repairing the heap below it. Sets of two make a binary heap.
    """
    heap = list(range(n))
    for level in reversed(list(levels(n, children(size)))):
        yield from together([sift(heap, node, size) for node in level])
    chosen = [] if chosen is None else chosen
    chosen += heap[: min(k, 1)]
    while len(chosen) < k:
        last = heap.pop()
        heap[0] = last
        if len(chosen) == k - 1:
            chosen.append((yield from best_of_family(heap, 0, size)))
        else:
            yield from sift(heap, 0, size)
            chosen.append(heap[0])
    return chosen


def children(size: int) -> int:
    """Children of a node: a set holds a node with its children, but a heap needs two at least."""
    return max(2, size - 1)


def levels(n: int, most: int) -> Iterator[range]:
    """The nodes with children, level by level from the root, if a node has `most` of them."""
    start, stop, parents = 0, 1, (n - 2) // most + 1
    while start < parents:
        yield range(start, min(stop, parents))
        start, stop = stop, most * stop + 1


def sift(heap: list[int], node: int, size: int) -> Part[None]:
    """Let the position at `node` sink until none of its children is better."""
    while (first := children(size) * node + 1) < len(heap):
        winner = yield from best_of_family(heap, node, size)
        if winner == heap[node]:
            return
        child = heap.index(winner, first)
        heap[node], heap[child] = winner, heap[node]
        node = child


def best_of_family(heap: list[int], node: int, size: int) -> Part[int]:
    """The best of a node and its children; of three with sets of two, the children play first."""
    first = children(size) * node + 1
    family = heap[first : first + children(size)]
    if len(family) == size:
        family = [(yield from best(family))]
    return (yield from best([heap[node], *family]))


@checked
def bubblesort(n: int, k: int, size: int, chosen: list[int] | None = None) -> Selection:
    """The k best by setwise bubblesort (arXiv 2310.09497, §3.2), at every set size.

    The order is cut, from the back, into sets that share their borders. A border is *settled* while its position is
    known to be the best of all behind it, so that a pass starts at the foremost settled border. The reference
    implementation guesses that, and at size 20 loses passages of the top k.
    """
    order, chosen = list(range(n)), [] if chosen is None else chosen
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
        chosen.append(order[place])
    return chosen


@checked
def window(
    n: int, k: int, size: int, chosen: list[int] | None = None, *, step: int | None = None, passes: int | None = None
) -> Selection:
    """The k best by sliding window (RankGPT, arXiv 2304.09542), in as many passes as k needs.

    For listwise answers. Consecutive sets overlap in half a set, or in k positions if that is less: as many reach the
    front in a pass, and further passes order the rest. A set shows the order found so far, not the first-stage order:
    if an answer names only some of the set, they come first and the others stay as shown.

    `step` is the distance of consecutive sets, below `size`. With `passes` there are as many, each over all positions
    again, whatever k is. Then a set is asked as soon as the sets before it that share a place with it are answered, so
    that a further pass takes few more rounds; the result is that of one set after another.
    """
    if step is not None and not 0 < step < size:
        raise ValueError(f"step, the distance of sets, must be at least 1 and below size={size} (got {step})")
    order, chosen, placed, plan, number = list(range(n)), [] if chosen is None else chosen, 0, list[range](), 0
    while placed < k if passes is None else n and number < passes:
        overlap = size - step if step else min(k - placed, size // 2)
        stop = n
        while True:
            plan.append(range(max(placed, stop - size), stop))
            if plan[-1].start == placed:
                break
            stop = plan[-1].start + overlap
        number += 1
        if passes is None:
            placed = placed + overlap if n - placed > size else n
    rounds, last = list[list[range]](), [0] * n  # the last round, from 1, that changes each place
    for span in plan:
        at = len(rounds) if passes is None else max(last[span.start : span.stop])
        rounds += [[]] * (at == len(rounds))
        rounds[at] = [*rounds[at], span]
        last[span.start : span.stop] = [at + 1] * len(span)
    for at, asked in enumerate(rounds, 1):
        spans = [span for span in asked if len(span) > 1]
        sets = [tuple(order[span.start : span.stop]) for span in spans]
        answers = (yield from ask(sets)) if sets else []
        for span, shown, answer in zip(spans, sets, answers, strict=True):
            order[span.start : span.stop] = dict.fromkeys((*named(shown, answer), *shown))
        while len(chosen) < k and last[len(chosen)] <= at:
            chosen.append(order[len(chosen)])
    return chosen
