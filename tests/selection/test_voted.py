"""Votes: how often, in which orders, and who wins; and a ballot, one round of votes on one set."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_rag.selection import ALGORITHMS, Answer, Done, Round, Selection, Set, ballot, play, step, voted


def sets(number: int, *members: int) -> Selection:
    """Asks one set in each of this many rounds; returns the last answer it was sent."""
    answers: list[Answer] = [()]
    for _ in range(number):
        answers = yield [members]
    return list(answers[0])


def answered(selection: Selection, answers: list[Answer]) -> list[int]:
    """The result of a selection of one round."""
    state = step(selection)
    assert not isinstance(state, Done)
    assert len(state) == len(answers)
    done = step(selection, answers)
    assert isinstance(done, Done)
    return done.value


def elected(answers: list[Answer], n: int = 5, k: int = 3) -> list[int]:
    selection = ballot(n, k, 20, len(answers))
    return answered(selection, answers)


def test_one_vote_changes_nothing() -> None:
    def judge(shown: Set) -> Answer:
        return (random.Random(str(shown)).choice(shown),)

    for algorithm in ALGORITHMS.values():
        assert play(voted(algorithm(50, 5, 7), 1, 0), judge) == play(algorithm(50, 5, 7), judge)


def test_each_set_is_asked_once_a_vote_first_as_it_is_and_in_both_orders_before_one_repeats() -> None:
    state = step(voted(ALGORITHMS["heapsort"](100, 10, 20), 3, 0))
    plain = step(ALGORITHMS["heapsort"](100, 10, 20))
    assert not isinstance(state, Done)
    assert not isinstance(plain, Done)
    assert state[::3] == plain
    assert [tuple(sorted(shown)) for shown in state] == [shown for shown in plain for _ in range(3)]
    assert len(set(state)) == len(state)
    pair = step(voted(sets(1, 4, 9), 4, 0))
    assert isinstance(pair, list)
    assert (pair[:2], len(pair)) == ([(4, 9), (9, 4)], 4)


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
    assert answered(voted(sets(1, 3, 5, 8), len(answers), seed=0), answers) == expected


def test_a_round_wants_one_answer_a_vote() -> None:
    selection = voted(sets(1, 3, 5, 8), 3, seed=0)
    step(selection)
    with pytest.raises(ValueError, match="a round of 3 sets was sent 1 answers"):
        step(selection, [(3,)])


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_votes_keep_a_perfect_judge_perfect_and_k_positions_k(name: str) -> None:
    truth = random.Random(0).sample(range(60), 60)
    chosen = play(voted(ALGORITHMS[name](60, 7, 9), 3, 1), lambda shown: tuple(sorted(shown, key=truth.__getitem__)))
    assert [truth[position] for position in chosen] == list(range(7))


def test_votes_outvote_a_judge_who_prefers_the_first_in_the_prompt() -> None:
    """Shown in first-stage order the best, 19, comes last, where such a judge never looks; shuffled it does not."""

    def judge(shown: Set) -> Answer:
        return (19,) if shown.index(19) < 15 else (shown[0],)

    assert play(ALGORITHMS["heapsort"](20, 1, 20), judge) == [0]
    for seed in range(50):
        assert play(voted(ALGORITHMS["heapsort"](20, 1, 20), 9, seed), judge) == [19]


def test_the_orders_depend_on_the_seed_and_the_round_and_on_nothing_before() -> None:
    def rounds(seed: int) -> list[Round]:
        selection, found = voted(sets(3, *range(10)), 3, seed), []
        state = step(selection)
        while not isinstance(state, Done):
            found.append(state)
            state = step(selection, [(0,)] * 3)
        return found

    before = rounds(3)
    random.seed(99)
    step(voted(ALGORITHMS["ahead"](30, 2, 5), 7, 3))
    assert rounds(3) == before != rounds(4)
    assert len({tuple(sets[1:]) for sets in before}) == 3
    assert {sets[0] for sets in before} == {tuple(range(10))}


@pytest.mark.parametrize("votes", [0, -2])
def test_fewer_than_one_vote_or_ballot_is_refused(votes: int) -> None:
    with pytest.raises(ValueError, match=rf"votes must .* \(got {votes}\)"):
        voted(ALGORITHMS["heapsort"](5, 1, 3), votes, 0)
    with pytest.raises(ValueError, match=rf"ballots must .* \(got {votes}\)"):
        ballot(5, 5, 20, votes)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(3,), (3,), (1,)], [3, 1, 0]),
        ([(4,), (3,), (3,), (4,)], [3, 4, 0]),  # two tied
        ([(4,), (2,), (3,), (1,), (3,)], [3, 1, 2]),  # more named than wanted
        ([(2,), (2,), (2,)], [2, 0, 1]),
        ([(4,)], [4, 0, 1]),
        ([(4, 3, 2, 1, 0), (4, 3, 2, 1, 0), (0, 4, 3, 2, 1)], [4, 3, 2]),  # points: 14, 11, 8; 0 has 7, 1 has 5
        ([(4, 0), (0, 4)], [0, 4, 1]),
        ([(4,), (3, 4), (3, 4)], [4, 3, 0]),
        ([(4, 4, 4), (2,), (2,)], [2, 4, 0]),  # repeated in one answer, counted once
    ],
)
def test_a_ballot_ranks_by_votes_or_points_and_a_tie_goes_to_the_first_stage_best(
    answers: list[Answer], expected: list[int]
) -> None:
    assert elected(answers) == expected


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_with_any_answers_a_ballot_ends_after_one_round_with_k_distinct_positions(data: st.DataObject) -> None:
    n, k, ballots = data.draw(st.tuples(st.integers(2, 20), st.integers(1, 22), st.integers(1, 12)))
    answer = st.lists(st.integers(0, n - 1), min_size=1, max_size=n + 3).map(tuple)
    assert step(ballot(n, k, 20, ballots)) == [tuple(range(n))] * ballots
    chosen = elected(data.draw(st.lists(answer, min_size=ballots, max_size=ballots)), n, k)
    assert len(chosen) == len(set(chosen)) == min(k, n)
    assert set(chosen) <= set(range(n))


@settings(max_examples=100, deadline=None)
@given(votes=st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_a_ballot_of_single_votes_orders_by_their_number(votes: list[int]) -> None:
    order = elected([(vote,) for vote in votes], n=10, k=10)
    assert order == sorted(range(10), key=lambda position: (-votes.count(position), position))


def test_a_ballot_ranks_only_the_first_of_a_judge_who_is_sure() -> None:
    """Why it is no algorithm: with a perfect judge of winners it is not exact, with a listwise one it is."""
    truth = random.Random(0).sample(range(20), 20)
    best_first = sorted(range(20), key=truth.__getitem__)
    [winner, *rest] = play(ballot(20, 5, 20, 16), lambda shown: (min(shown, key=truth.__getitem__),))
    assert winner == best_first[0]
    assert rest == [position for position in range(20) if position != winner][:4]
    assert play(ballot(20, 5, 20, 1), lambda shown: tuple(best_first)) == best_first[:5]
    assert "ballot" not in ALGORITHMS


def test_a_voted_ballot_is_one_in_new_orders() -> None:
    answers = [(4,), (3,), (3,), (1,), (4,), (0,)]
    state = step(voted(ballot(5, 3, 20, 1), len(answers), seed=0))
    assert isinstance(state, list)
    assert [tuple(sorted(shown)) for shown in state] == [(0, 1, 2, 3, 4)] * len(answers)
    assert len(set(state)) == len(answers)
    assert answered(voted(ballot(5, 3, 20, 1), len(answers), seed=0), answers) == elected(answers)


def test_a_ballot_takes_no_more_than_a_set_and_no_position_outside_of_it() -> None:
    problem = r"at most 20 candidates, .* \(got 21\): rerank fewer candidates, or use another algorithm"
    with pytest.raises(ValueError, match=problem):
        ballot(21, 5, 20, 8)
    with pytest.raises(ValueError, match=r"the answer .* to the set"):
        elected([(1,), (2, 77)])
