"""One selection played through against one judge, and what it cost.

Knows positions. Must not know grades, measures or files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rankr1_eval.selection.judges import Opinion
from rankr1_rag.selection import Done, Selection, Set, step


@dataclass(frozen=True, slots=True)
class Played:
    """The positions selected, best first, and the cost. A passage is read each time it is shown."""

    chosen: tuple[int, ...]
    comparisons: int
    rounds: int
    passages_read: int


def played(selection: Selection, opinion: Opinion, listwise: bool) -> Played:
    """The selection answered by the judge's opinion: by whole orders where it is listwise, else by the best alone."""
    asked: Counter[Set] = Counter()
    rounds, state = 0, step(selection)
    while not isinstance(state, Done):
        answers = []
        for shown in state:
            answer = opinion(shown, asked[shown])
            asked[shown] += 1
            answers.append(answer if listwise else answer[:1])
        rounds, state = rounds + 1, step(selection, answers)
    read = sum(len(shown) * times for shown, times in asked.items())
    return Played(tuple(state.value), asked.total(), rounds, read)
