"""A tournament that asks ahead: few rounds, for a few comparisons more.

Knows which contenders to ask now and who may be asked at the same time; who is a contender, it asks of `losses`.

What is known of who lost to whom: the memory behind `tournament` and `ahead`.

A position left in the running that lost to nobody left is a *contender*; the next best is always a contender, and where
there is one alone it is the next best. Selecting it sets free those who had lost to nobody else. This generalises the
winner tree: any set of contenders may be asked, not only the fixed groups of a tree.

Knows positions and winners. Must not know how a round is chosen from the contenders.

A tournament: few comparisons and few passages read.

Knows which contenders to ask next; who is a contender, it asks of `losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rankr1_rag.selection.rounds import Round, Selection, ask, checked

Plan = Callable[["Losses", list[int], int], Round]
"""Which sets to ask next, given the contenders, two or more, and how many positions are still wanted.

At least the first set must hold nobody who is known to have lost to another of the set: then every round teaches
something, and any selection ends.
"""


class Losses:
    """Who lost to whom among positions 0..n-1; never a circle, whatever the answers."""

    def __init__(self, n: int) -> None:
        self._contenders = set(range(n))
        self.won = set[int]()
        self._losers: list[set[int]] = [set() for _ in range(n)]
        self._winners: list[set[int]] = [set() for _ in range(n)]

    def contenders(self) -> list[int]:
        """Most promising first: whoever has won a comparison before who has not, then first-stage order."""
        return sorted(self._contenders & self.won) + sorted(self._contenders - self.won)

    def freed(self, *gone: int) -> list[int]:
        """Who would be set free if these contenders were selected, in first-stage order."""
        out, losers = set(gone), self._losers[gone[0]].union(*[self._losers[position] for position in gone[1:]])
        return sorted([loser for loser in losers if self._winners[loser] <= out])

    def record(self, shown: Iterable[int], winner: int) -> None:
        """The winner beat the rest of the set. Where that contradicts earlier answers, the earlier ones stand."""
        losers, winners = set(shown) - self._above(winner), self._winners
        for loser in losers:
            winners[loser].add(winner)
        self._losers[winner] |= losers
        self._contenders -= losers
        self.won.add(winner)

    def select(self) -> int:
        """Take the only contender out of the running."""
        [chosen], winners = self._contenders, self._winners
        self._contenders = set(self.freed(chosen))
        for loser in self._losers[chosen]:
            winners[loser].discard(chosen)
        return chosen

    def _above(self, position: int) -> set[int]:
        """The position and all who beat it, directly or not."""
        above, unseen = {position}, [position]
        while unseen:
            new = self._winners[unseen.pop()] - above
            above |= new
            unseen.extend(new)
        return above


def selected(n: int, k: int, plan: Plan) -> Selection:
    """Ask what the plan says until one contender is left, select it, and so on."""
    losses, chosen = Losses(n), list[int]()
    while len(chosen) < k:
        contenders = losses.contenders()
        if len(contenders) == 1:
            chosen.append(losses.select())
            continue
        sets = plan(losses, contenders, k - len(chosen))
        answers = yield from ask(sets)
        for shown, answer in zip(sets, answers, strict=True):
            losses.record(shown, answer[0])
    return chosen


def few(size: int) -> int:
    """How many contenders to thin out to, where there are too many for one set.

    Three quarters of a set. Fewer cost comparisons, more are read again and again: see bench/selection.md.
    """
    return size * 3 // 4


def thinned(contenders: list[int], to: int, size: int) -> Round:
    """Full sets of the least promising, as many as leave `to` contenders, or as near as one round gets to it.

    The least promising, because a set won by one of the k best has to be asked again without it.
    """
    sets, rest, left = [], contenders, len(contenders)
    while left > to and len(rest) > 1:
        width = min(size, left - to + 1, len(rest))
        sets.append(tuple(sorted(rest[-width:])))
        rest, left = rest[:-width], left - width + 1
    return sets


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
