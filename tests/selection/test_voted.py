"""Votes: how often, in which orders, and who wins."""

from __future__ import annotations

import random

import pytest

from rankr1_rag.selection import ALGORITHMS, Answer, Done, Round, Selection, Set, play, step, voted


def one_set(members: list[int]) -> Selection:
    """Asks one set; returns the answer it was sent."""
    [answer] = yield [tuple(members)]
    return list(answer)


def answered(votes: int, answers: list[Answer], members: list[int] | None = None) -> list[int]:
    selection = voted(one_set(members or [3, 5, 8]), votes, seed=0)
    step(selection)
    done = step(selection, answers)
    assert isinstance(done, Done)
    return done.value


def test_one_vote_changes_nothing() -> None:
    def judge(shown: Set) -> Answer:
        return (random.Random(str(shown)).choice(shown),)

    for algorithm in ALGORITHMS.values():
        assert play(voted(algorithm(50, 5, 7), 1, 0), judge) == play(algorithm(50, 5, 7), judge)


def test_each_set_is_asked_as_often_as_there_are_votes_the_first_time_as_given() -> None:
    state = step(voted(ALGORITHMS["heapsort"](100, 10, 20), 3, 0))
    plain = step(ALGORITHMS["heapsort"](100, 10, 20))
    assert not isinstance(state, Done)
    assert not isinstance(plain, Done)
    assert state[::3] == plain
    assert [tuple(sorted(shown)) for shown in state] == [shown for shown in plain for _ in range(3)]
    assert len(set(state)) == len(state)


def test_two_passages_are_shown_both_ways_before_an_order_is_repeated() -> None:
    state = step(voted(one_set([4, 9]), 4, 0))
    assert not isinstance(state, Done)
    assert state[:2] == [(4, 9), (9, 4)]
    assert len(state) == 4


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(5,), (5,), (3,)], [5, 3]),  # the majority
        ([(8,), (3,), (8,)], [8, 3]),
        ([(8,), (5,), (3,)], [3, 5, 8]),  # a tie: the first-stage best
        ([(8,), (5,)], [5, 8]),
        ([(8,), (8,), (5,), (5,), (3,)], [5, 8, 3]),
        ([(8, 5, 3), (8, 5, 3), (3, 8, 5)], [8, 3, 5]),  # points: 8 has 8, 5 has 5, 3 has 5
        ([(3, 5, 8), (8, 5, 3)], [3, 5, 8]),  # all have 4
        ([(5, 3, 8), (5, 8, 3), (3, 8, 5)], [5, 3, 8]),  # 7, 6, 5
        ([(8,), (5, 8), (5, 8)], [8, 5]),  # 7, 6: two seconds are worth more than one first
        ([(77,), (77,), (5,)], [77, 5]),  # outside the set: left to the selection
    ],
)
def test_the_majority_wins_by_borda_and_a_tie_goes_to_the_first_stage_best(
    answers: list[Answer], expected: list[int]
) -> None:
    assert answered(len(answers), answers) == expected


def test_a_round_wants_one_answer_a_vote() -> None:
    selection = voted(one_set([3, 5, 8]), 3, seed=0)
    step(selection)
    with pytest.raises(ValueError, match="a round of 3 sets was sent 1 answers"):
        step(selection, [(3,)])


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_votes_keep_a_perfect_judge_perfect_and_k_positions_k(name: str) -> None:
    truth = random.Random(0).sample(range(60), 60)
    chosen = play(voted(ALGORITHMS[name](60, 7, 9), 3, 1), lambda shown: tuple(sorted(shown, key=truth.__getitem__)))
    assert [truth[position] for position in chosen] == list(range(7))


def test_votes_outvote_a_judge_who_prefers_the_first_in_the_prompt() -> None:
    """Shown in first-stage order the best, 19, stands last, where such a judge never looks; shuffled it does not."""

    def judge(shown: Set) -> Answer:
        return (19,) if shown.index(19) < 15 else (shown[0],)

    assert play(ALGORITHMS["heapsort"](20, 1, 20), judge) == [0]
    for seed in range(50):
        assert play(voted(ALGORITHMS["heapsort"](20, 1, 20), 9, seed), judge) == [19]


def first_rounds(seed: int, number: int) -> list[Round]:
    selection = voted(ALGORITHMS["tournament"](80, 6, 10), 4, seed)
    rounds: list[Round] = []
    state = step(selection)
    while not isinstance(state, Done) and len(rounds) < number:
        rounds.append(list(state))
        state = step(selection, [(min(shown),) for shown in state])
    return rounds


def test_the_orders_depend_on_the_seed_and_on_nothing_before() -> None:
    before = first_rounds(seed=3, number=5)
    random.seed(99)
    step(voted(ALGORITHMS["ahead"](30, 2, 5), 7, 3))
    assert first_rounds(seed=3, number=5) == before
    assert first_rounds(seed=4, number=5) != before


def test_the_same_set_in_another_round_is_shown_in_other_orders() -> None:
    def twice() -> Selection:
        for _ in range(2):
            yield [tuple(range(10))]
        return []

    selection = voted(twice(), 3, 0)
    first = step(selection)
    second = step(selection, [(0,)] * 3)
    assert not isinstance(first, Done)
    assert not isinstance(second, Done)
    assert first[0] == second[0]
    assert first[1:] != second[1:]


@pytest.mark.parametrize("votes", [0, -2])
def test_fewer_than_one_vote_is_refused_when_voted_is_called(votes: int) -> None:
    with pytest.raises(ValueError, match=rf"votes must .* \(got {votes}\)"):
        voted(ALGORITHMS["heapsort"](5, 1, 3), votes, 0)
