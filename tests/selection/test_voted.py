"""Votes: how often, in which orders, and who wins; and scores, one round with their means."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.selection import ALGORITHMS, Answer, Done, Round, Selection, Set, among, play, scores, step, voted


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
def test_fewer_than_one_vote_or_epoch_is_refused(votes: int) -> None:
    with pytest.raises(ValueError, match=rf"votes must .* \(got {votes}\)"):
        voted(ALGORITHMS["heapsort"](5, 1, 3), votes, 0)
    with pytest.raises(ValueError, match=rf"epochs must .* \(got {votes}\)"):
        step(scores(5, 5, 20, epochs=votes))


def scored(n: int, k: int, size: int, judge: dict[int, float], **options: int) -> list[int]:
    """The result of `scores`; a position that the judge does not know has no score."""
    state = step(scores(n, k, size, **options))
    assert not isinstance(state, Done)
    assert all(1 <= len(shown) <= size and len({*shown}) == len(shown) for shown in state)
    assert sorted(position for shown in state for position in shown) == sorted([*range(n)] * options.get("epochs", 1))
    return play(scores(n, k, size, **options), lambda shown: {one: judge[one] for one in shown if one in judge})


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 20), st.integers(1, 4), st.randoms())
def test_a_perfect_judge_of_scores_gives_the_sorted_top_k_in_one_round(
    n: int, k: int, size: int, epochs: int, dice: random.Random
) -> None:
    truth = dice.sample(range(n), n)
    best_first = sorted(range(n), key=lambda position: -truth[position])
    assert scored(n, k, size, dict(enumerate(map(float, truth))), epochs=epochs, seed=k) == best_first[:k]


def test_ties_keep_the_first_stage_order_and_a_position_without_a_score_comes_last() -> None:
    assert scored(5, 5, 2, {4: 0.5, 1: 0.5, 2: 0.7}, epochs=3) == [2, 1, 4, 0, 3]
    assert scored(3, 2, 20, {}) == [0, 1]


def test_sets_are_of_equal_sizes_and_shuffled_in_each_epoch_unless_they_hold_one() -> None:
    sets = step(scores(45, 10, 20, epochs=2, seed=3))
    assert [len(shown) for shown in sets] == [15] * 6
    assert sets == step(scores(45, 10, 20, epochs=2, seed=3))
    assert len({*sets, *step(scores(45, 10, 20, epochs=1, seed=4))}) == 9
    assert step(scores(3, 1, 1, epochs=2)) == [(0,), (1,), (2,)] * 2


def test_the_mean_is_that_of_the_scores_that_there_are() -> None:
    selection = scores(2, 2, 2, epochs=3)
    sets = step(selection)
    assert step(selection, [{0: 0.9, 1: 0.8}, {0: 0.1}, {1: 0.6}]) == Done([1, 0])
    chosen: list[int] = []
    selection = scores(2, 1, 2, chosen)
    step(selection)
    step(selection, [{1: 1.0}])
    assert (len(sets), chosen) == (3, [1])


def test_nothing_is_asked_without_candidates_and_one_gets_a_score_too() -> None:
    assert step(scores(0, 3, 5)) == Done([])
    assert step(scores(1, 3, 5)) == [(0,)]


def test_arguments_and_answers_that_do_not_fit_are_refused() -> None:
    for arguments, problem in (
        ((-1, 1, 1), r"n, "),
        ((3, 0, 1), r"k, "),
        ((3, 1, 0), r"size, .* at least 1 \(got 0\)"),
    ):
        with pytest.raises(ValueError, match=problem):
            scores(*arguments)
    for answers, problem in (([{0: 1.0}], "a round of 3 sets"), ([{0: 1.0}, {0: 1.0}, {}], "not in the set")):
        selection = scores(3, 1, 1)
        step(selection)
        with pytest.raises(ValueError, match=problem):
            step(selection, answers)


def test_scores_of_a_part_of_the_positions() -> None:
    judge = {7: 0.1, 8: 0.9, 9: 0.5}
    selection = among(scores(3, 2, 1), [7, 8, 9])
    assert play(selection, lambda shown: {one: judge[one] for one in shown}) == [8, 9]
