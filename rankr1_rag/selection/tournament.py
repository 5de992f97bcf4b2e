"""A tournament: few comparisons and few passages read.

Knows which contenders to ask next; who is a contender, it asks of `losses`.
"""

from __future__ import annotations

from rankr1_rag.selection.losses import Losses, few, selected, thinned
from rankr1_rag.selection.parts import Round, Selection, checked


def tournament(n: int, k: int, size: int) -> Selection:
    """The k best by a tournament that replays only what it must.

    Where the contenders fit in one set they are asked at once, and the winner is the next best. Where they do not, the
    least promising are thinned out first, in sets side by side. Tournament sort (Knuth, TAOCP 3, §5.2.3) with sets in
    place of pairs, and with groups formed anew from whoever is left in place of a fixed tree.
    """

    def plan(_losses: Losses, contenders: list[int], _wanted: int) -> Round:
        return heat(contenders, size)

    return selected(n, checked(n, k, size), plan)


def heat(contenders: list[int], size: int) -> Round:
    """All contenders in one set, or else the sets that thin them out."""
    if len(contenders) <= size:
        return [tuple(sorted(contenders))]
    return thinned(contenders, few(size), size)
