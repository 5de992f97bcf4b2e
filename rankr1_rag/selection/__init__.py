"""Which sets to compare, and what their answers say about the k best.

Selection is sans-IO: a generator over positions that yields a round of sets, is sent the answers, and returns the k
best positions. Cost (comparisons, passages read) and latency (rounds) can be measured without a model: see `play`.
Knows nothing of text, prompts, models or asyncio.

    parts        step, best, together, play: what rounds are and how they compose
    losses       who lost to whom: the memory of tournament and ahead
    heapsort     as in the Rank-R1 paper
    tournament   few comparisons, few passages read
    ahead        few rounds
    bubblesort   as in the setwise paper, right at every set size
    window       sliding window, for listwise answers
    voted        any of these with several votes a set
    among        any of these over some of the positions
    ballot       several votes on one set of all candidates, in one round; not exact, so not among the ALGORITHMS
"""

from __future__ import annotations

from collections.abc import Callable

from rankr1_rag.selection.heapsort import bubblesort, heapsort
from rankr1_rag.selection.rounds import Answer, Done, Part, Round, Selection, Set, among, best, play, step, together
from rankr1_rag.selection.tournament import ahead, tournament
from rankr1_rag.selection.voting import ballot, orders, voted
from rankr1_rag.selection.window import window

ALGORITHMS: dict[str, Callable[[int, int, int], Selection]] = {
    "ahead": ahead,
    "bubblesort": bubblesort,
    "heapsort": heapsort,
    "tournament": tournament,
    "window": window,
}
"""The exact ones, as (n, k, size) -> Selection: a perfect judge gives exactly the sorted top k."""

LISTWISE = frozenset({"window"})
"""The algorithms that want listwise answers; the others use the first position of an answer, and take either kind."""

__all__ = [
    "ALGORITHMS",
    "LISTWISE",
    "Answer",
    "Done",
    "Part",
    "Round",
    "Selection",
    "Set",
    "ahead",
    "among",
    "ballot",
    "best",
    "bubblesort",
    "heapsort",
    "orders",
    "play",
    "step",
    "together",
    "tournament",
    "voted",
    "window",
]
