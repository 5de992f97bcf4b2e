"""The order of a selection that is left before its end."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.selection import ALGORITHMS, LISTWISE, Answer, Done, Set, so_far, step, voted


def played(name: str, n: int, k: int, size: int, worth: Sequence[float], most: int) -> tuple[list[int], list[int]]:
    """What is chosen, and the order so far, after at most this many answers of a judge."""
    chosen: list[int] = []
    asked: list[tuple[Set, Answer]] = []
    selection = ALGORITHMS[name](n, k, size, chosen)
    state = step(selection)
    while not isinstance(state, Done) and len(asked) + len(state) <= most:
        answers = [tuple(sorted(shown, key=worth.__getitem__, reverse=True)) for shown in state]
        answers = answers if name in LISTWISE else [answer[:1] for answer in answers]
        asked += zip(state, answers, strict=True)
        state = step(selection, answers)
    if isinstance(state, Done):
        assert state.value == chosen
    return chosen, so_far(n, asked, chosen)


@given(
    name=st.sampled_from(sorted(ALGORITHMS)),
    n=st.integers(0, 40),
    k=st.integers(1, 12),
    size=st.integers(2, 9),
    most=st.integers(0, 60),
    seed=st.integers(0, 99),
)
def test_at_any_time_it_holds_every_position_once_and_begins_with_the_chosen(
    name: str, n: int, k: int, size: int, most: int, seed: int
) -> None:
    worth = random.Random(seed).sample(range(n), n)
    chosen, order = played(name, n, k, size, worth, most)
    assert sorted(order) == list(range(n))
    assert order[: len(chosen)] == chosen
    best = sorted(range(n), key=worth.__getitem__, reverse=True)
    assert chosen == best[: len(chosen)]


def by_moves(n: int, asked: Sequence[tuple[Set, Answer]]) -> list[int]:
    """What `so_far` computes, as its docstring says it."""
    beaten: list[set[int]] = [set() for _ in range(n)]
    for shown, (winner, *others) in asked:
        if not others:
            beaten[winner] |= set(shown).union(*[beaten[loser] for loser in shown]) - {winner}
    order = sorted(range(n), key=lambda position: (position + 1) / math.sqrt(1 + len(beaten[position])))
    for shown, answer in asked:
        for place, position in enumerate(answer):
            behind = set(shown) - set(answer[: place + 1])
            if behind and (foremost := min(map(order.index, behind))) < order.index(position):
                order.remove(position)
                order.insert(foremost, position)
    return order


@given(st.data())
def test_whatever_is_answered_the_last_winner_is_in_front_of_those_it_beat(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 30))
    asked = []
    for _ in range(data.draw(st.integers(1, 12))):
        members = data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=6, unique=True))
        named = data.draw(st.one_of(st.just(1), st.integers(1, len(members))))
        asked.append((tuple(members), tuple(data.draw(st.permutations(members))[:named])))
    order = so_far(n, asked)
    assert order == by_moves(n, asked)
    assert sorted(order) == list(range(n))
    shown, answer = asked[-1]
    assert sorted(shown, key=order.index)[: len(answer)] == list(answer)


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([((0, 1), (1,))], [1, 0, 2, 3, 4, 5, 6, 7]),
        ([((6, 7), (7,))], [0, 1, 2, 3, 4, 7, 5, 6]),  # 8 / √2 < 6
        ([((4, 5, 6, 7), (7,))], [0, 1, 2, 3, 7, 4, 5, 6]),  # 8 / √4 = 4, the rank of 3
        ([((6, 7), (7,)), ((2, 7), (2,))], [0, 2, 1, 3, 4, 7, 5, 6]),
        ([((4, 5, 6, 7), (7, 5))], [0, 1, 2, 3, 7, 5, 4, 6]),
        ([((1, 3), (3,)), ((1, 3), (1,))], [0, 1, 3, 2, 4, 5, 6, 7]),
    ],
)
def test_a_winner_moves_up_by_the_number_that_it_beat(asked: list[tuple[Set, Answer]], order: list[int]) -> None:
    assert so_far(8, asked) == order


def test_votes_and_a_part_of_the_positions_leave_the_list_of_the_chosen_as_it_is() -> None:
    chosen: list[int] = []
    selection = voted(ALGORITHMS["tournament"](6, 3, 3, chosen), 3, 0)
    state = step(selection)
    while not isinstance(state, Done):
        state = step(selection, [(max(shown),) for shown in state])
    assert chosen == state.value == [5, 4, 3]
