"""Intervals and p are scipy's, and nothing depends on what ran before."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rankr1_eval.measures import intervals
from rankr1_eval.measures.intervals import FLIPS, differences, estimates

pytestmark = pytest.mark.third_party

SCORES = st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]), min_size=1, max_size=9)


def column(values: Sequence[float]) -> np.ndarray:
    return np.array([values], dtype=np.float64).T


@settings(max_examples=30)
@given(SCORES, st.integers(1, 7))
def test_the_interval_lies_inside_the_scores_and_repetition_changes_nothing(scores: list[float], often: int) -> None:
    table = column(scores)
    (found,), (change,), (reverse,) = estimates(table), differences(table), differences(-table)
    assert found.n == len(scores)
    assert found.mean == pytest.approx(sum(scores) / len(scores))
    inside = itertools.pairwise([min(scores), found.low, found.mean, found.high, max(scores)])
    assert all(one <= other + 1e-12 for one, other in inside)
    assert reverse.p == change.p
    ends = (-change.mean, -change.high, -change.low)
    assert (reverse.mean, reverse.low, reverse.high) == pytest.approx(ends, abs=1e-3)
    weights = np.full_like(table, often)
    for one, weighted in (
        (found, *estimates(table * often, weights=weights)),
        (change, *differences(table * often, weights=weights)),
    ):
        assert asdict(weighted) == pytest.approx(asdict(one))


@pytest.mark.parametrize("scores", [[0.3], [0.1] * 7, [1.0] * 50, [0.0] * 3])
def test_equal_scores_have_an_interval_without_width(scores: list[float]) -> None:
    (found,) = estimates(column(scores))
    assert (found.mean, found.low, found.high) == pytest.approx((scores[0],) * 3)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.1, 1.0]), min_size=1, max_size=9))
def test_the_p_of_few_questions_is_exact(scores: list[float]) -> None:
    flips = list(itertools.product((-1, 1), repeat=len(scores)))
    sums = [abs(sum(sign * score for sign, score in zip(signs, scores, strict=True))) for signs in flips]
    (found,) = differences(column(scores))
    assert found.p == pytest.approx(sum(one >= abs(sum(scores)) - 1e-9 for one in sums) / len(flips))


@pytest.mark.parametrize("n", [1, 13, 14, 1000])
def test_no_difference_anywhere_has_a_p_of_1_and_one_everywhere_the_least(n: int) -> None:
    (found,), (other,) = differences(column([0.0] * n)), differences(column([0.2] * n))
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert n == 14 or other.p == (1 / (FLIPS + 1) if n > 13 else 2 / 2**n)


def test_what_ran_before_changes_nothing_and_is_not_changed() -> None:
    table = np.random.default_rng(1).random((20, 3))
    first = estimates(table), differences(table - 0.5)
    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert (estimates(table), differences(table - 0.5)) == first
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_column_has_the_same_figures_alone_and_with_others() -> None:
    table = np.random.default_rng(2).random((30, 4))
    for place, found in enumerate(estimates(table)):
        (alone,) = estimates(table[:, place : place + 1])
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_more_questions_than_fit_one_piece_are_drawn_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "CHUNK", 60_000)
    (found,) = differences(column([1.0, -1.0] * 60))
    assert found.low < 0 < found.high
    assert found.p == 1


@pytest.mark.parametrize(
    ("table", "weights", "problem"),
    [
        (np.zeros((0, 2)), None, "must be a line a question"),
        (np.zeros(3), None, "must be a line a question"),
        (column([0.0, float("nan")]), None, "not a finite number"),
        (column([0.0, float("inf")]), None, "not a finite number"),
        (column([1.0, 0.0]), column([1.0, 1.0, 1.0]), "shape"),
        (column([1.0, 0.0]), column([0.0, 0.0]), "above 0"),
        (column([1.0, 0.0]), column([1.0, -1.0]), "≥ 0"),
    ],
)
def test_a_table_without_a_mean_is_refused(table: np.ndarray, weights: np.ndarray | None, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        estimates(table, weights=weights)


def test_intervals_and_p_are_those_of_scipy() -> None:
    numbers = np.random.default_rng(3).normal(0.1, 1.0, 200)
    theirs = stats.bootstrap((numbers,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    tested = stats.permutation_test(
        (numbers, np.zeros(200)), lambda one, other: np.mean(one - other), permutation_type="samples", rng=1
    )
    (ours,) = differences(numbers[:, None])
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * (theirs.high - theirs.low))
    assert ours.p == pytest.approx(tested.pvalue, abs=0.02)


def test_a_mean_over_comparisons_has_the_interval_of_questions_drawn_with_all_of_theirs() -> None:
    dice = np.random.default_rng(3)
    weights = dice.integers(1, 6, size=(60, 1)).astype(float)
    table = dice.binomial(weights.astype(int), 0.7).astype(float)
    (found,) = estimates(table, weights=weights)
    assert found.mean == pytest.approx(table.sum() / weights.sum())
    drawn = dice.integers(0, 60, size=(20_000, 60))
    ratios = table[drawn, 0].sum(axis=1) / weights[drawn, 0].sum(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.01)


def test_a_question_without_weight_counts_for_nothing() -> None:
    (found,) = estimates(column([1.0, 0.0, 2.0, 0.0]), weights=column([1.0, 1.0, 2.0, 0.0]))
    assert found.mean == pytest.approx(3 / 4)
    assert 0 <= found.low <= found.high <= 1
