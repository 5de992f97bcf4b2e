"""What a selection costs with a perfect judge, counted: comparisons, rounds and passages read, never time."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from rankr1_rag.selection import ALGORITHMS, LISTWISE, Done, step

CASES = 1000


def candidates(seed: int, n: int, noise: float) -> list[int]:
    """True places along the first-stage order, which sorts by true place + N(0, noise)."""
    dice = random.Random(seed)
    scores = [place + dice.gauss(0, noise) for place in range(n)]
    return sorted(range(n), key=scores.__getitem__)


def cost(name: str, truth: list[int], k: int, size: int) -> tuple[int, int, int]:
    """Comparisons, rounds, passages read."""
    selection = ALGORITHMS[name](len(truth), k, size)
    comparisons = rounds = passages = 0
    state = step(selection)
    while not isinstance(state, Done):
        comparisons, rounds, passages = comparisons + len(state), rounds + 1, passages + sum(map(len, state))
        state = step(selection, [tuple(sorted(shown, key=truth.__getitem__)) for shown in state])
    assert [truth[position] for position in state.value] == list(range(k))
    return comparisons, rounds, passages


@pytest.mark.parametrize(
    ("name", "comparisons", "rounds", "passages"),
    [
        ("heapsort", 20.1, 16.1, 383),
        ("tournament", 19.5, 15.2, 299),
        ("ahead", 25.52, 9.7, 393),
        ("bubblesort", 21.2, 21.2, 343),
        ("window", 9, 9, 180),
    ],
)
def test_the_mean_cost_of_the_top_10_of_100_at_size_20(
    name: str, comparisons: float, rounds: float, passages: float
) -> None:
    """The figures of bench/selection.md, rounded up; a change that lowers one may lower its bound."""
    costs = [cost(name, candidates(seed, 100, 25.0), 10, 20) for seed in range(CASES)]
    means = [mean(column) for column in zip(*costs, strict=True)]
    assert means[0] <= comparisons
    assert means[1] <= rounds
    assert means[2] <= passages


@pytest.mark.parametrize("name", sorted(ALGORITHMS.keys() - LISTWISE))
@pytest.mark.parametrize("noise", [0.0, 5.0, 1000.0])
def test_the_top_5_of_20_are_5_comparisons(name: str, noise: float) -> None:
    for seed in range(20):
        assert cost(name, candidates(seed, 20, noise), 5, 20)[0] == 5


def test_one_listwise_answer_ranks_20() -> None:
    assert cost("window", candidates(0, 20, 5.0), 5, 20) == (1, 1, 20)


@pytest.mark.parametrize(("name", "comparisons"), [("heapsort", 25), ("tournament", 24), ("ahead", 30)])
@pytest.mark.parametrize("order", ["random", "reversed"])
def test_a_useless_first_stage_costs_little_more(name: str, comparisons: int, order: str) -> None:
    for seed in range(100):
        truth = candidates(seed, 100, 1e6) if order == "random" else list(range(100))[::-1]
        assert cost(name, truth, 10, 20)[0] <= comparisons


@pytest.mark.parametrize("name", ["ahead", "bubblesort", "tournament"])
def test_a_single_best_is_found_in_as_few_comparisons_as_can_be(name: str) -> None:
    """Each comparison rules out `size - 1` at most: 99 / 19 makes 6."""
    assert cost(name, candidates(0, 100, 25.0), 1, 20)[0] == 6


def test_ahead_takes_fewer_rounds_than_positions_selected() -> None:
    assert mean(cost("ahead", candidates(seed, 100, 25.0), 10, 20)[1] for seed in range(100)) < 10
