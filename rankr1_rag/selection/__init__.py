"""Sans-IO top-k selection: generators over positions that yield rounds of sets and are sent the answers.

They return the k best positions. Cost (comparisons, passages read) and latency (rounds) can be measured without a
model: see `play`. This package does not know text, prompts, models or asyncio.

    parts        step, best, together, play: what rounds are and how they compose
    so_far       the best order of a selection that is left before its end
    heapsort     as in the Rank-R1 paper
    tournament   few comparisons, few passages read
    ahead        few rounds
    bubblesort   as in the setwise paper, right at every set size
    window       sliding window, for listwise answers
    voted        any of these with several votes on each set
    among        any of these over a part of the positions
    scores       the means of scores, in one round, for judges that give scores
"""

from __future__ import annotations

from typing import Protocol

from rankr1_rag.selection.rounds import (
    Answer,
    Done,
    Part,
    Round,
    Scores,
    Selection,
    Set,
    among,
    best,
    play,
    so_far,
    step,
    together,
)
from rankr1_rag.selection.sorting import bubblesort, heapsort, window
from rankr1_rag.selection.tournament import ahead, tournament
from rankr1_rag.selection.voting import orders, scores, voted


class Algorithm(Protocol):
    """Selects the k best of n positions with sets of at most `size`; `chosen` is filled with them one by one."""

    def __call__(self, n: int, k: int, size: int, /, chosen: list[int] | None = None) -> Selection:
        """The selection."""


ALGORITHMS: dict[str, Algorithm] = {
    "ahead": ahead,
    "bubblesort": bubblesort,
    "heapsort": heapsort,
    "tournament": tournament,
    "window": window,
}
"""The exact algorithms: a perfect judge gives exactly the sorted top k. (`scores` needs one that gives scores.)"""

SCORES = "scores"
"""The name of the algorithm for scored answers."""

LISTWISE = frozenset({"window"})
"""The algorithms for listwise answers; the others use the first position of an answer, and take either kind."""

__all__ = [
    "ALGORITHMS",
    "LISTWISE",
    "SCORES",
    "Algorithm",
    "Answer",
    "Done",
    "Part",
    "Round",
    "Scores",
    "Selection",
    "Set",
    "ahead",
    "among",
    "best",
    "bubblesort",
    "heapsort",
    "orders",
    "play",
    "scores",
    "so_far",
    "step",
    "together",
    "tournament",
    "voted",
    "window",
]
