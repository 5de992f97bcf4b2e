"""What is particular to two algorithms: bubblesort at size 20, and window with its listwise answers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from rankr1_rag.selection import ALGORITHMS, LISTWISE, Answer, Done, Set, play, step


def perfect(best_first: list[int]) -> Callable[[Set], Answer]:
    return lambda shown: tuple(sorted(shown, key=best_first.index))


@pytest.mark.parametrize("n", [20, 21, 39, 58, 100])
def test_bubblesort_loses_nobody_at_size_20(n: int) -> None:
    """The reference implementation does: after a pass it skips sets whose front has changed."""
    for seed in range(40):
        best_first = random.Random(seed).sample(range(n), n)
        assert play(ALGORITHMS["bubblesort"](n, 10, 20), perfect(best_first)) == best_first[:10]


def test_window_puts_the_named_first_and_leaves_the_rest_as_shown() -> None:
    assert play(ALGORITHMS["window"](5, 5, 5), lambda shown: (3, 1)) == [3, 1, 0, 2, 4]


def test_window_counts_a_repeated_position_once() -> None:
    assert play(ALGORITHMS["window"](3, 3, 3), lambda shown: (2, 2, 0, 2)) == [2, 0, 1]


def test_window_shows_the_order_found_so_far() -> None:
    selection = ALGORITHMS["window"](6, 2, 4)
    assert step(selection) == [(2, 3, 4, 5)]
    assert step(selection, [(5, 4)]) == [(0, 1, 5, 4)]
    assert step(selection, [(4, 0)]) == Done([4, 0])


def test_window_refuses_a_position_outside_the_set_anywhere_in_an_answer() -> None:
    with pytest.raises(ValueError, match=r"names \[8\], not in the set"):
        play(ALGORITHMS["window"](4, 2, 4), lambda shown: (1, 8, 2))


def test_the_listwise_algorithms_are_among_the_algorithms() -> None:
    assert ALGORITHMS.keys() >= LISTWISE


@pytest.mark.parametrize(
    ("k", "rounds"),
    [
        (1, 6),  # 1 + 80 / 19
        (5, 7),  # 1 + 80 / 15: an overlap of 5 carries the 5 best to the front
        (10, 9),  # 1 + 80 / 10
        (11, 14),  # and a second pass over 90 for one more: 1 + 70 / 19
    ],
)
def test_window_overlaps_no_more_than_k_needs(k: int, rounds: int) -> None:
    selection, taken = ALGORITHMS["window"](100, k, 20), 0
    state = step(selection)
    while not isinstance(state, Done):
        state, taken = step(selection, [shown[::-1] for shown in state]), taken + 1
    assert taken == rounds
