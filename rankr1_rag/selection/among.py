"""A selection over some of the positions only, as the stages of a hop-aware reranking need it.

Knows positions. Must not know why the others are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankr1_rag.selection.parts import Done, Selection, step


def among(selection: Selection, positions: Sequence[int]) -> Selection:
    """The same selection over these distinct positions in place of 0, 1, 2…; its sets and its result hold them.

    In ascending order they stay in first-stage order, which a selection goes by.
    """
    places = {position: place for place, position in enumerate(positions)}
    state = step(selection)
    while not isinstance(state, Done):
        answers = yield [tuple(positions[place] for place in shown) for shown in state]
        state = step(selection, [tuple(places[position] for position in answer) for answer in answers])
    return [positions[place] for place in state.value]
