"""What holds for every algorithm: exact with a perfect judge, and safe with any other."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_rag.selection import ALGORITHMS, LISTWISE, Answer, Done, Round, Selection, Set, play, step, voted

Judge = Callable[[Set], Answer]

every_algorithm = pytest.mark.parametrize("name", sorted(ALGORITHMS))
winner_only = pytest.mark.parametrize("name", sorted(ALGORITHMS.keys() - LISTWISE))


def perfect(truth: list[int], listwise: bool = True) -> Judge:
    """`truth[position]` is the true place of a position."""
    if listwise:
        return lambda shown: tuple(sorted(shown, key=truth.__getitem__))
    return lambda shown: (min(shown, key=truth.__getitem__),)


def at_random(shown: Set) -> Answer:
    return (random.Random(str(shown)).choice(shown),)


def partly_at_random(shown: Set) -> Answer:
    dice = random.Random(str(shown))
    return tuple(dice.sample(shown, dice.randint(1, len(shown))))


TURN = count()

# The worst of judges: none of them is an order.
OTHER_JUDGES: dict[str, Judge] = {
    "always the last": lambda shown: (shown[-1],),
    "always the first": lambda shown: (shown[0],),
    "the highest position": lambda shown: (max(shown),),
    "backwards, listwise": lambda shown: tuple(sorted(shown, reverse=True)),
    "cyclic": lambda shown: (min(shown, key=lambda position: (position - sum(shown)) % 7),),
    "rock, paper, scissors": lambda shown: (max(shown, key=lambda p: sum((p - q) % 3 == 1 for q in shown)),),
    "random": at_random,
    "random, listwise, partial": partly_at_random,
    "repeating itself": lambda shown: (shown[0], shown[0], shown[1], shown[0]),
    "changing its mind": lambda shown: (shown[next(TURN) % len(shown)],),
}


def rounds_of(selection: Selection, judge: Judge, size: int) -> tuple[list[int], list[Round]]:
    """The selection's result and every round, each seen to be well formed."""
    rounds: list[Round] = []
    state = step(selection)
    while not isinstance(state, Done):
        assert state, "an empty round"
        for shown in state:
            assert 2 <= len(shown) <= size
            assert len(set(shown)) == len(shown)
        rounds.append(list(state))
        state = step(selection, [judge(shown) for shown in state])
    return state.value, rounds


def cases(seed: int, number: int) -> list[tuple[list[int], int, int]]:
    """(truth, k, size): first-stage orders from perfect to reversed, sizes 2 to 20, up to 200 candidates."""
    dice, found = random.Random(seed), []
    for _ in range(number):
        n = dice.randint(0, dice.choice([3, 25, 60, 200]))
        noise = n * dice.choice([0, 0.1, 0.3, 10])
        truth = sorted(range(n), key=lambda place: dice.choice([1, 1, 1, -1]) * place + dice.gauss(0, noise))
        found.append((truth, dice.randint(1, n + 2), dice.randint(2, 20)))
    return found


@every_algorithm
def test_a_perfect_judge_gives_exactly_the_sorted_top_k(name: str) -> None:
    for number, (truth, k, size) in enumerate(cases(seed=0, number=3000)):
        k = k if number % 10 == 0 else min(k, 12)
        judge = perfect(truth, listwise=name in LISTWISE or number % 2 == 0)
        chosen, _ = rounds_of(ALGORITHMS[name](len(truth), k, size), judge, size)
        assert [truth[position] for position in chosen] == list(range(min(k, len(truth)))), (truth, k, size)


@every_algorithm
@pytest.mark.parametrize("n", [0, 1, 2, 3, 20, 21, 39])
@pytest.mark.parametrize("size", [2, 3, 19, 20])
def test_every_k_from_1_to_beyond_n_is_exact_from_a_reversed_order(name: str, n: int, size: int) -> None:
    truth = list(range(n))[::-1]
    for k in range(1, n + 3):
        assert play(ALGORITHMS[name](n, k, size), perfect(truth)) == list(range(n))[::-1][:k]


@every_algorithm
@pytest.mark.parametrize("judge", OTHER_JUDGES.values(), ids=OTHER_JUDGES.keys())
def test_with_any_judge_a_selection_ends_with_k_distinct_positions(name: str, judge: Judge) -> None:
    for truth, k, size in cases(seed=1, number=60):
        n = len(truth)
        chosen, rounds = rounds_of(ALGORITHMS[name](n, k, size), judge, size)
        assert len(chosen) == len(set(chosen)) == min(k, n)
        assert set(chosen) <= set(range(n))
        assert sum(map(len, rounds)) <= most_comparisons(n, k, size)


def most_comparisons(n: int, k: int, size: int) -> int:
    """Generous, but of the right kind: each of the k costs no more than a few times as much as the first."""
    return 3 * min(n, k) * (ceil((n - 1) / (size - 1)) + ceil(log2(n))) if n > 1 else 0


@every_algorithm
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_with_arbitrary_answers_a_selection_ends_with_k_distinct_positions(name: str, data: st.DataObject) -> None:
    n, k, size = data.draw(st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(2, 12)))
    dice = data.draw(st.randoms(use_true_random=False))
    chosen, rounds = rounds_of(ALGORITHMS[name](n, k, size), lambda shown: (dice.choice(shown),), size)
    assert len(chosen) == len(set(chosen)) == min(k, n)
    assert sum(map(len, rounds)) <= most_comparisons(n, k, size)


@winner_only
def test_only_the_first_position_of_an_answer_counts_and_sets_are_shown_in_first_stage_order(name: str) -> None:
    for truth, k, size in cases(seed=3, number=60):
        whole = rounds_of(ALGORITHMS[name](len(truth), k, size), perfect(truth, listwise=True), size)
        first = rounds_of(ALGORITHMS[name](len(truth), k, size), perfect(truth, listwise=False), size)
        assert whole == first
        assert all(list(shown) == sorted(shown) for sets in whole[1] for shown in sets)


@every_algorithm
@pytest.mark.parametrize(("n", "expected"), [(0, []), (1, [0])])
def test_nothing_is_asked_about_fewer_than_two_candidates(name: str, n: int, expected: list[int]) -> None:
    assert step(ALGORITHMS[name](n, 10, 20)) == Done(expected)


@every_algorithm
@pytest.mark.parametrize(
    ("n", "k", "size", "complaint"),
    [
        (-1, 1, 2, r"n, .* \(got -1\)"),
        (5, 0, 2, r"k, .* \(got 0\)"),
        (5, -3, 2, r"k, .* \(got -3\)"),
        (5, 1, 1, r"size, .* \(got 1\)"),
    ],
)
def test_a_bad_argument_is_refused_when_the_algorithm_is_called(
    name: str, n: int, k: int, size: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        ALGORITHMS[name](n, k, size)


@every_algorithm
@pytest.mark.parametrize("answer", [(), (77,), (-1,)])
@pytest.mark.parametrize("surplus", [-1, 0, 1])
def test_answers_that_do_not_fit_the_round_are_the_drivers_error(name: str, answer: Answer, surplus: int) -> None:
    selection = ALGORITHMS[name](10, 3, 4)
    sets = step(selection)
    assert not isinstance(sets, Done)
    with pytest.raises(ValueError, match=f"a round of {len(sets)} sets" if surplus else r"the answer .* to the set"):
        step(selection, [answer] * (len(sets) + surplus))


@every_algorithm
def test_two_selections_stepped_in_turn_do_not_notice_each_other(name: str) -> None:
    alone = rounds_of(voted(ALGORITHMS[name](60, 8, 7), 3, 0), at_random, size=7)
    first, second = voted(ALGORITHMS[name](60, 8, 7), 3, 0), ALGORITHMS[name](90, 5, 11)
    rounds, state, state2 = [], step(first), step(second)
    while not isinstance(state, Done):
        rounds.append(list(state))
        random.seed(len(rounds))  # nor the global random state
        state = step(first, [at_random(shown) for shown in state])
        if not isinstance(state2, Done):
            state2 = step(second, [(max(shown),) for shown in state2])
    assert (state.value, rounds) == alone


PROGRAM = """
import random
from rankr1_rag.selection import ALGORITHMS, Done, step, voted
for name, algorithm in ALGORITHMS.items():
    selection = voted(algorithm(70, 9, 8), 3, 5)
    state = step(selection)
    while not isinstance(state, Done):
        print(state)
        state = step(selection, [(random.Random(str(shown)).choice(shown),) for shown in state])
    print(name, state.value)
"""


def test_the_hash_seed_changes_nothing() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "42")
    }
    assert len(outputs) == 1
    assert "tournament [" in outputs.pop()
