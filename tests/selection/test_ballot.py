"""A ballot: one round of one set, and who is elected."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_rag.selection import ALGORITHMS, Answer, Done, ballot, play, step, voted


def elected(answers: list[Answer], n: int = 5, k: int = 3) -> list[int]:
    selection = ballot(n, k, 20, len(answers))
    assert step(selection) == [tuple(range(n))] * len(answers)
    done = step(selection, answers)
    assert isinstance(done, Done)
    return done.value


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(3,), (3,), (1,)], [3, 1, 0]),
        ([(4,), (3,), (3,), (4,)], [3, 4, 0]),
        ([(4,), (2,), (3,), (1,), (3,)], [3, 1, 2]),
        ([(2,), (2,), (2,)], [2, 0, 1]),
        ([(4,)], [4, 0, 1]),
    ],
    ids=["by votes", "two tied", "more named than wanted", "one named alone", "one ballot"],
)
def test_votes_rank_and_a_tie_goes_to_the_first_stage_best(answers: list[Answer], expected: list[int]) -> None:
    assert elected(answers) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(4, 3, 2, 1, 0), (4, 3, 2, 1, 0), (0, 4, 3, 2, 1)], [4, 3, 2]),  # points: 14, 11, 8; 0 has 7, 1 has 5
        ([(4, 0), (0, 4)], [0, 4, 1]),
        ([(4,), (3, 4), (3, 4)], [4, 3, 0]),  # 13, 10: two seconds are worth more than one first
    ],
)
def test_orders_are_counted_after_borda(answers: list[Answer], expected: list[int]) -> None:
    assert elected(answers) == expected


def test_a_position_repeated_in_one_answer_is_counted_once() -> None:
    assert elected([(4, 4, 4), (2,), (2,)]) == [2, 4, 0]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_with_any_answers_it_ends_after_one_round_with_k_distinct_positions(data: st.DataObject) -> None:
    n, k, ballots = data.draw(st.tuples(st.integers(2, 20), st.integers(1, 22), st.integers(1, 12)))
    answer = st.lists(st.integers(0, n - 1), min_size=1, max_size=n + 3).map(tuple)
    selection = ballot(n, k, 20, ballots)
    state = step(selection)
    assert state == [tuple(range(n))] * ballots
    done = step(selection, data.draw(st.lists(answer, min_size=ballots, max_size=ballots)))
    assert isinstance(done, Done)
    assert len(done.value) == len(set(done.value)) == min(k, n)
    assert set(done.value) <= set(range(n))


@settings(max_examples=100, deadline=None)
@given(votes=st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_whoever_stands_first_has_as_many_votes_and_with_as_many_is_first_stage_better(votes: list[int]) -> None:
    order = elected([(vote,) for vote in votes], n=10, k=10)
    assert order == sorted(range(10), key=lambda position: (-votes.count(position), position))


@pytest.mark.parametrize(("n", "expected"), [(0, []), (1, [0])])
def test_nothing_is_asked_about_fewer_than_two_candidates(n: int, expected: list[int]) -> None:
    assert step(ballot(n, 5, 20, 8)) == Done(expected)


def test_a_judge_who_is_sure_ranks_only_its_first() -> None:
    """Why a ballot is no algorithm: with a perfect judge of winners it is not exact, with a listwise one it is."""
    truth = random.Random(0).sample(range(20), 20)
    best_first = sorted(range(20), key=truth.__getitem__)
    [winner, *rest] = play(ballot(20, 5, 20, 16), lambda shown: (min(shown, key=truth.__getitem__),))
    assert winner == best_first[0]
    assert rest == [position for position in range(20) if position != winner][:4]
    assert play(ballot(20, 5, 20, 1), lambda shown: tuple(best_first)) == best_first[:5]
    assert "ballot" not in ALGORITHMS


def test_in_fresh_orders_it_is_a_voted_ballot_of_one() -> None:
    answers = [(4,), (3,), (3,), (1,), (4,), (0,)]
    selection = voted(ballot(5, 3, 20, 1), len(answers), seed=0)
    state = step(selection)
    assert not isinstance(state, Done)
    assert [tuple(sorted(shown)) for shown in state] == [(0, 1, 2, 3, 4)] * len(answers)
    assert len(set(state)) == len(answers)
    assert step(selection, answers) == Done(elected(answers))


@pytest.mark.parametrize(
    ("n", "k", "size", "ballots", "complaint"),
    [
        (21, 5, 20, 8, r"at most 20 candidates, .* \(got 21\): rerank fewer candidates, or use another algorithm"),
        (5, 5, 20, 0, r"ballots must .* \(got 0\)"),
        (5, 5, 20, -2, r"ballots must .* \(got -2\)"),
        (-1, 1, 2, 1, r"n, .* \(got -1\)"),
        (5, 0, 20, 1, r"k, .* \(got 0\)"),
        (1, 1, 1, 1, r"size, .* \(got 1\)"),
    ],
)
def test_a_bad_argument_is_refused_when_it_is_called(n: int, k: int, size: int, ballots: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ballot(n, k, size, ballots)


@pytest.mark.parametrize("answer", [(), (77,), (-1,), (2, 77)])
def test_an_answer_outside_the_set_is_the_drivers_error(answer: Answer) -> None:
    selection = ballot(5, 3, 20, 2)
    step(selection)
    with pytest.raises(ValueError, match=r"the answer .* to the set"):
        step(selection, [(1,), answer])


@pytest.mark.parametrize("number", [1, 3])
def test_a_round_wants_one_answer_a_ballot(number: int) -> None:
    selection = ballot(5, 3, 20, 2)
    step(selection)
    with pytest.raises(ValueError, match=f"a round of 2 sets was sent {number} answers"):
        step(selection, [(1,)] * number)
