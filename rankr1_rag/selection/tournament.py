"""Tournament selections: few comparisons and few passages read (`tournament`), or few rounds (`ahead`).

A position left in the running that lost to nobody left is a *contender*; the next best is always a contender, and if
there is only one, it is the next best. Selecting it sets free those who had lost to nobody else. This generalises the
winner tree: any set of contenders may be compared, not only the fixed groups of a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rankr1_rag.selection.rounds import Round, Selection, ask, checked

Plan = Callable[["Losses", list[int], int, int], Round]
"""The sets to compare next, from two or more contenders, the number of positions still wanted and the set size.

At least the first set must hold nobody who is known to have lost to another of the set: then every round gives new
information, and any selection ends.
"""


class Losses:
    """Who lost to whom among positions 0..n-1; never a circle, whatever the answers."""

    def __init__(self, n: int) -> None:
        self.contenders = set(range(n))
        self.won = set[int]()
        self._losers: list[set[int]] = [set() for _ in range(n)]
        self._winners: list[set[int]] = [set() for _ in range(n)]

    def freed(self, *gone: int) -> list[int]:
        """The positions that selecting these contenders would set free, in first-stage order."""
        out, losers = set(gone), self._losers[gone[0]].union(*[self._losers[position] for position in gone[1:]])
        return sorted([loser for loser in losers if self._winners[loser] <= out])

    def record(self, shown: Iterable[int], winner: int) -> None:
        """The winner beat the rest of the set. Earlier answers win over one that contradicts them."""
        above, unseen, winners = {winner}, [winner], self._winners  # all that beat the winner, directly or not
        while unseen:
            new = winners[unseen.pop()] - above
            above |= new
            unseen.extend(new)
        losers = set(shown) - above
        for loser in losers:
            winners[loser].add(winner)
        self._losers[winner] |= losers
        self.contenders -= losers
        self.won.add(winner)

    def select(self) -> int:
        """Take the only contender out of the running."""
        [chosen], winners = self.contenders, self._winners
        for loser in self._losers[chosen]:
            winners[loser].discard(chosen)
        self.contenders = {loser for loser in self._losers[chosen] if not winners[loser]}
        return chosen


def selected(n: int, k: int, size: int, plan: Plan, chosen: list[int] | None) -> Selection:
    """Compare the sets of the plan until one contender is left, select it, and so on."""
    losses, chosen = Losses(n), [] if chosen is None else chosen
    while len(chosen) < k:
        if len(losses.contenders) == 1:
            chosen.append(losses.select())
            continue
        # Most promising first: winners of a comparison, then the others, each in first-stage order.
        contenders = sorted(losses.contenders & losses.won) + sorted(losses.contenders - losses.won)
        sets = plan(losses, contenders, k - len(chosen), size)
        answers = yield from ask(sets)
        for shown, answer in zip(sets, answers, strict=True):
            losses.record(shown, answer[0])
    return chosen


def few(size: int) -> int:
    """The number of contenders to thin out to if there are too many for one set: three quarters of a set.

    Fewer cost comparisons, more are read again and again: see bench/selection.md.
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


@checked
def tournament(n: int, k: int, size: int, chosen: list[int] | None = None) -> Selection:
    """The k best by a tournament that replays only what it must.

    If the contenders fit in one set they are compared at once, and the winner is the next best. If not, the least
    promising are thinned out first, in parallel sets. Tournament sort (Knuth, TAOCP 3, §5.2.3) with sets in place of
    pairs, and with new groups of whoever is left in place of a fixed tree.
    """
    return selected(n, k, size, heat, chosen)


def heat(_losses: Losses, contenders: list[int], _wanted: int, size: int) -> Round:
    """All contenders in one set, or else the sets that thin them out."""
    if len(contenders) <= size:
        return [tuple(sorted(contenders))]
    return thinned(contenders, few(size), size)


@checked
def ahead(n: int, k: int, size: int, chosen: list[int] | None = None) -> Selection:
    """The k best by a tournament that makes the next comparisons ahead: few rounds for a few comparisons more.

    Once the contenders fit in one set, a round usually selects one or two:

    * If some contender would set free more than fit in the next set, these are thinned out ahead, while all the
      contenders are compared.
    * If none would, the round is two sets: all but the most promising contender, with those it would set free, and
      likewise all but the second. If either of the two wins its set, the other set names the runner-up; if neither
      does, both sets name the same position.

    If all n fit in one set there is nothing to thin out, and this is `tournament`.
    """
    return selected(n, k, size, heat if n <= size else heat_ahead, chosen)


def heat_ahead(losses: Losses, contenders: list[int], wanted: int, size: int) -> Round:
    """The sets of `heat`, with those that would probably be needed next."""
    sets = heat(losses, contenders, wanted, size)
    if len(contenders) > size or wanted == 1:
        return sets
    surplus: Round = []
    for winner in contenders:
        freed = losses.freed(winner)
        total = len(contenders) - 1 + len(freed)
        if total > size:  # too many for one set with the contenders
            surplus += thinned(freed, max(1, len(freed) - (total - few(size))), size)
    if surplus:
        return sets + surplus
    if len(contenders) == 2:  # one is the next best, and mostly the other the one after
        freed = losses.freed(*contenders)
        return sets + heat(losses, freed, wanted, size) if wanted > 2 and len(freed) > 1 else sets
    return [tuple(sorted({*contenders, *losses.freed(favourite)} - {favourite})) for favourite in contenders[:2]]
