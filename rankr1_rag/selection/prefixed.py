"""The orders in which sets are shown, so that a prompt begins as an earlier one did.

A backend with a prefix cache reads a passage anew unless all that stands before it in the prompt is the same as in an
earlier prompt. Knows sets and winners. Must not know texts, tokens or what is really in a cache.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from rankr1_rag.selection.rounds import Done, Selection, Set, step


def prefixed(selection: Selection) -> Selection:
    """The same selection with each set shown in `order`, after the sets of the rounds before.

    Who is likely to win stands last. A judge who minds places may choose worse for it: see bench/prefix.md. Compose as
    `voted(prefixed(…), …)`, so that the first vote is cast in this order.
    """
    state, earlier, won = step(selection), list[Set](), set[int]()
    while not isinstance(state, Done):
        sets = [order(shown, earlier, won) for shown in state]
        answers = yield sets
        earlier += sets
        won |= {answer[0] for answer in answers if answer}
        state = step(selection, answers)
    return state.value


def order(shown: Set, earlier: Iterable[Set], won: Container[int] = ()) -> Set:
    """The longest beginning of an earlier set, as it was shown, that is all in this set; then the rest.

    Of the rest the first-stage worst come first and those that have won a set last: a winner is mostly selected and
    then missing, and what stands before it stays the same.
    """
    members = set(shown)
    start = max((_beginning(before, members) for before in earlier), key=len, default=())
    rest = members.difference(start)
    return (*start, *sorted(rest, key=lambda position: (position in won, -position)))


def _beginning(before: Set, members: set[int]) -> Set:
    """How an earlier set begins, up to the first that is not a member."""
    for place, position in enumerate(before):
        if position not in members:
            return before[:place]
    return before
