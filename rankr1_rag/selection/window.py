"""A sliding window over a listwise order: each set is put in order whole, from the back to the front.

Knows how far the window moves and how many positions a pass puts in their place. Must not know formats: it takes
what positions an answer names, however few.
"""

from __future__ import annotations

from rankr1_rag.selection.rounds import Part, Selection, ask, checked, named


def window(n: int, k: int, size: int) -> Selection:
    """The k best by sliding window (RankGPT, arXiv 2304.09542), in as many passes as k needs.

    Wants listwise answers. Consecutive sets overlap in half a set, or in k positions where that is less: so many reach
    the front in a pass, and further passes go over the remainder. A set shows the order found so far, not the
    first-stage order: where an answer names only some of the set, they come first and the rest stay as shown.
    """
    return _window(n, checked(n, k, size), size)


def _window(n: int, k: int, size: int) -> Selection:
    order, placed = list(range(n)), 0
    while placed < k:
        overlap = min(k - placed, size // 2)
        rest = yield from _pass(order[placed:], size, overlap)
        order[placed:] = rest
        placed += overlap if len(rest) > size else len(rest)
    return order[:k]


def _pass(rest: list[int], size: int, overlap: int) -> Part[list[int]]:
    """The same positions, the best `overlap` of them in front, in order; all in order where one set holds them."""
    stop = len(rest)
    while True:
        start = max(0, stop - size)
        rest[start:stop] = yield from _ordered(rest[start:stop])
        if start == 0:
            return rest
        stop = start + overlap


def _ordered(members: list[int]) -> Part[list[int]]:
    """A set in the order of its answer; ValueError where the answer names a position outside the set."""
    if len(members) == 1:
        return members
    [answer] = yield from ask([tuple(members)])
    return list(dict.fromkeys((*named(tuple(members), answer), *members)))
