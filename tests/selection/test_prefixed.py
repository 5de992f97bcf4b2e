"""Sets in an order that keeps the beginnings of earlier prompts: what is shown changes, what is selected does not."""

from __future__ import annotations

import random
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.selection import ALGORITHMS, Answer, Done, Round, Selection, Set, play, prefixed, step, voted
from rankr1_rag.selection.prefixed import order


@pytest.mark.parametrize(
    ("shown", "earlier", "won", "expected"),
    [
        ((1, 4, 6), [], (), (6, 4, 1)),
        ((1, 4, 6), [], (6,), (4, 1, 6)),
        ((1, 4, 6), [], (1, 6), (4, 6, 1)),
        ((1, 4, 6, 7), [(4, 1, 5, 6)], (), (4, 1, 7, 6)),
        ((1, 4, 6, 7), [(4, 1, 5, 6)], (1, 7), (4, 1, 6, 7)),
        ((1, 4, 6), [(6, 2), (4, 6, 2), (1, 2)], (), (4, 6, 1)),
        ((1, 4, 6), [(4, 1, 6)], (4,), (4, 1, 6)),
        ((1, 4, 6), [(2, 6, 4, 1)], (), (6, 4, 1)),
        ((1, 4), [(4, 1, 6)], (), (4, 1)),
    ],
    ids=[
        "the first-stage worst first",
        "who has won last",
        "of those who have won the first-stage worst first",
        "up to the first who is missing",
        "whoever won stays in the beginning",
        "the longest beginning of several",
        "all of an earlier set",
        "a beginning that is missing is none",
        "an earlier set that goes on",
    ],
)
def test_a_set_begins_as_an_earlier_one_and_likely_winners_stand_last(
    shown: Set, earlier: list[Set], won: Set, expected: Set
) -> None:
    assert order(shown, earlier, won) == expected


positions = st.lists(st.integers(0, 30), min_size=2, max_size=20, unique=True).map(tuple)


def alike(one: Set, other: Set) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


@given(shown=positions, earlier=st.lists(positions, max_size=6), won=st.sets(st.integers(0, 30)))
def test_no_order_of_a_set_begins_more_like_an_earlier_one(shown: Set, earlier: list[Set], won: set[int]) -> None:
    found = order(shown, earlier, won)
    assert sorted(found) == sorted(shown)
    possible = (len(list(takewhile(lambda position: position in shown, before))) for before in earlier)
    assert max((alike(found, before) for before in earlier), default=0) == max(possible, default=0)
    assert order(tuple(sorted(shown)), earlier, won) == found, "the order it came in does not matter"


def at_random(shown: Set) -> Answer:
    return (random.Random(str(sorted(shown))).choice(sorted(shown)),)


def rounds_of(selection: Selection) -> tuple[list[int], list[Round]]:
    rounds: list[Round] = []
    state = step(selection)
    while not isinstance(state, Done):
        rounds.append(list(state))
        state = step(selection, [at_random(shown) for shown in state])
    return state.value, rounds


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
@pytest.mark.parametrize("n", [0, 1, 20, 90])
def test_the_same_sets_are_asked_and_the_same_positions_selected(name: str, n: int) -> None:
    plain, shown = rounds_of(ALGORITHMS[name](n, 6, 12)), rounds_of(prefixed(ALGORITHMS[name](n, 6, 12)))
    assert shown[0] == plain[0]
    assert [[sorted(one) for one in sets] for sets in shown[1]] == [[sorted(one) for one in sets] for sets in plain[1]]


def test_where_the_last_wins_each_time_every_set_is_a_beginning_of_the_first() -> None:
    rounds: list[Round] = []
    selection = prefixed(ALGORITHMS["tournament"](20, 5, 20))
    state = step(selection)
    while not isinstance(state, Done):
        rounds.append(list(state))
        state = step(selection, [(min(shown),) for shown in state])
    assert state.value == [0, 1, 2, 3, 4]
    assert rounds == [[tuple(range(19, first - 1, -1))] for first in range(5)]


def test_the_first_vote_is_cast_in_this_order() -> None:
    state = step(voted(prefixed(ALGORITHMS["tournament"](5, 2, 20)), 3, 0))
    assert not isinstance(state, Done)
    assert state[0] == (4, 3, 2, 1, 0)
    assert len(set(state)) == 3


@pytest.mark.parametrize("answers", [[], [(0,), (0,)], [()], [(77,)]])
def test_answers_that_do_not_fit_are_left_to_the_selection(answers: list[Answer]) -> None:
    selection = prefixed(ALGORITHMS["tournament"](5, 2, 20))
    step(selection)
    with pytest.raises(ValueError, match=r"a round of 1 sets|to the set"):
        step(selection, answers)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_perfect_judge_stays_perfect(name: str) -> None:
    truth = random.Random(1).sample(range(70), 70)
    chosen = play(prefixed(ALGORITHMS[name](70, 8, 20)), lambda shown: tuple(sorted(shown, key=truth.__getitem__)))
    assert [truth[position] for position in chosen] == list(range(8))
