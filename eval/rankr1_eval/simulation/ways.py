"""The ways to select that are compared, by name: an algorithm, one with votes, a ballot.

    tournament      an algorithm of rankr1_rag.selection.ALGORITHMS
    tournament:3    the same with three votes on each set
    ballot:16       sixteen answers to one set of all candidates, where they fit in one

Knows names and makers. Must not know judges.

Lists of names as they are given. Knows no name.

Where to write a name beside each of some points, so that names cover neither each other nor the points.

Knows rectangles. Must not know what is drawn, or with what.

One panel of the picture: the ways under one judge, nDCG against one cost, and their names beside the points.

Knows matplotlib's axes. Must not know the figure they are part of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankr1_eval.simulation.judges import distinct
from rankr1_rag.selection import ALGORITHMS, LISTWISE, Selection, ballot, voted

if TYPE_CHECKING:
    pass


VOTED = ("heapsort:3", "tournament:3", "window:3")
BALLOT = "ballot:16"


@dataclass(frozen=True, slots=True)
class Way:
    """A selection to be made anew as `make(n, k, size, seed)`; `listwise` where it is answered by whole orders."""

    name: str
    make: Callable[[int, int, int, int], Selection]
    listwise: bool = False


def ways_for(depth: int, size: int) -> tuple[str, ...]:
    """The names of all ways there are: every algorithm, some with votes, a ballot where all fit in one set."""
    return (*ALGORITHMS, *VOTED, *((BALLOT,) if depth <= size else ()))


def ways_named(names: Sequence[str], depth: int, size: int) -> list[Way]:
    """The ways of these names. ValueError on an unknown name, a name twice, none, or a ballot on more than a set."""
    ways = [way_named(name) for name in distinct("algorithm", names)]
    if depth > size and (ballots := [name for name in names if name.startswith("ballot:")]):
        raise ValueError(
            f"algorithm {ballots[0]!r} shows all candidates in one set of at most {size}, and depth is {depth}: "
            f"give a depth of at most {size}, or leave it out"
        )
    return ways


def way_named(name: str) -> Way:
    """The way of this name. ValueError where there is none."""
    algorithm, colon, times = name.partition(":")
    if colon and not (times.isdecimal() and 1 <= int(times) <= 1000):
        raise ValueError(f"algorithm {name!r}: {times!r} is not a whole number from 1 to 1000")
    if algorithm == "ballot" and colon:
        return Way(name, lambda n, k, size, seed: ballot(n, k, size, int(times)))
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ValueError(
            f"no algorithm is called {name!r}: there are {known}, each with votes as NAME:3, and ballot:16"
        )
    make, votes = ALGORITHMS[algorithm], int(times or 1)
    return Way(name, lambda n, k, size, seed: voted(make(n, k, size), votes, seed), algorithm in LISTWISE)
