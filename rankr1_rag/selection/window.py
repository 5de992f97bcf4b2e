"""A sliding window over a listwise order: each set is put in order whole, from the back to the front."""

from __future__ import annotations

from rankr1_rag.selection.rounds import Part, Selection, ask, checked, named


def window(n: int, k: int, size: int) -> Selection:
    """The k best by sliding window (RankGPT, arXiv 2304.09542), in as many passes as k needs.

    For listwise answers. Consecutive sets overlap in half a set, or in k positions if that is less: as many reach the
    front in a pass, and further passes order the rest. A set shows the order found so far, not the first-stage order:
    if an answer names only some of the set, they come first and the others stay as shown.
    """
    return windows(n, checked(n, k, size), size)


def windows(n: int, k: int, size: int) -> Selection:
    """`window` of checked arguments."""
    order, placed = list(range(n)), 0
    while placed < k:
        overlap, left = min(k - placed, size // 2), n - placed
        stop = n
        while True:
            start = max(placed, stop - size)
            order[start:stop] = yield from ordered(order[start:stop])
            if start == placed:
                break
            stop = start + overlap
        placed += overlap if left > size else left
    return order[:k]


def ordered(members: list[int]) -> Part[list[int]]:
    """A set in the order of its answer; ValueError if the answer names a position outside the set."""
    if len(members) == 1:
        return members
    [answer] = yield from ask([tuple(members)])
    return list(dict.fromkeys((*named(tuple(members), answer), *members)))
