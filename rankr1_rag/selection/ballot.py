"""A ballot: one round for a set that fits one prompt, the same prompt answered many times over, ranked by votes.

Knows how answers to one set become an order. Must not know why they differ: that takes a judge who draws its answers
(a temperature above 0), since one who always says the same can only name its first.
"""

from __future__ import annotations

from rankr1_rag.selection.parts import Selection, ask, checked, named
from rankr1_rag.selection.voted import borda


def ballot(n: int, k: int, size: int, ballots: int) -> Selection:
    """The k with the most votes of `ballots` answers to all n candidates, shown in first-stage order, in one round.

    Listwise answers are counted after Borda, as `voted` does; ties, among those without votes too, go to the
    first-stage best. ValueError where n is more than `size`.

    Not exact: a judge who is sure votes for one position only, and the other places stay the first stage's. The prompt
    is the same each time, so that a backend with a prefix cache reads it once; what the judge holds of a passage's
    place in the prompt is in every vote. `voted(ballot(n, k, size, 1), ballots, seed)` shows fresh orders instead, and
    pays for the reading. Both are measured in bench/ballot.md.
    """
    if ballots < 1:
        raise ValueError(f"ballots, how often the set is asked, must be at least 1, not {ballots}")
    wanted = checked(n, k, size)
    if n > size:
        raise ValueError(
            f"n, the number of candidates, must be at most {size}, the size of a set that fits one prompt, not {n}: "
            "rerank fewer candidates, or use another algorithm"
        )
    return _ballot(n, wanted, ballots)


def _ballot(n: int, k: int, ballots: int) -> Selection:
    shown = tuple(range(n))
    if n < 2:
        return list(shown)
    answers = yield from ask([shown] * ballots)
    order = borda([tuple(named(shown, answer)) for answer in answers], n)
    return list(dict.fromkeys((*order, *shown)))[:k]
