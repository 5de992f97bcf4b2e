"""A tournament that asks ahead: few rounds, for a few comparisons more.

Knows which contenders to ask now and who may be asked at the same time; who is a contender, it asks of `losses`.
"""

from __future__ import annotations

from rankr1_rag.selection.losses import Losses, few, selected, thinned
from rankr1_rag.selection.parts import Round, Selection, checked
from rankr1_rag.selection.tournament import heat, tournament


def ahead(n: int, k: int, size: int) -> Selection:
    """The k best by a tournament that asks now what it would have to ask next.

    Once the contenders fit in one set, a round mostly selects one at least, and often two:

    * Where some contender would set free more than fit in the next set, these are thinned out ahead, while all the
      contenders are asked.
    * Where none would, the round is two sets: all but the most promising contender, with those it would set free, and
      likewise all but the second. Where either of the two wins its set, the other set names the runner-up; where
      neither does, both sets name the same position.

    If all n fit in one set there is nothing to thin out, and this is `tournament`.
    """
    if n <= size:
        return tournament(n, k, size)

    def plan(losses: Losses, contenders: list[int], wanted: int) -> Round:
        if len(contenders) > size or wanted == 1:
            return heat(contenders, size)
        winners = [contender for contender in contenders if contender in losses.won]
        surplus = [shown for winner in winners for shown in _surplus(losses, len(contenders), winner, size)]
        if surplus:
            return heat(contenders, size) + surplus
        if len(contenders) == 2:
            return heat(contenders, size) + _after_both(losses, contenders, wanted, size)
        return [_without(losses, contenders, favourite) for favourite in contenders[:2]]

    return selected(n, checked(n, k, size), plan)


def _surplus(losses: Losses, contenders: int, winner: int, size: int) -> Round:
    """The sets that thin out whom this winner would set free, if they are too many for one set with the contenders."""
    freed = losses.freed(winner)
    total = contenders - 1 + len(freed)
    return thinned(freed, max(1, len(freed) - (total - few(size))), size) if total > size else []


def _after_both(losses: Losses, contenders: list[int], wanted: int, size: int) -> Round:
    """Of two contenders one is the next best, and mostly the other the one after: what will be asked then."""
    freed = losses.freed(*contenders)
    return heat(freed, size) if wanted > 2 and len(freed) > 1 else []


def _without(losses: Losses, contenders: list[int], favourite: int) -> tuple[int, ...]:
    rest = {*contenders, *losses.freed(favourite)} - {favourite}
    return tuple(sorted(rest))
