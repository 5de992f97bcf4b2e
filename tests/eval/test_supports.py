"""Support recall, all supports, the rank of the first, against their definitions."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_eval.measures.answers import CUTOFFS, scores

ORDERS = st.permutations(list("abcdefghijklmn")).flatmap(lambda ids: st.integers(0, 14).map(lambda n: ids[:n]))
SUPPORTS = st.sets(st.sampled_from("abcdez"), min_size=1).map(sorted)


@settings(max_examples=100, deadline=None)
@given(ORDERS, SUPPORTS)
def test_the_measures_are_what_they_say(order: list[str], supports: list[str]) -> None:
    found = {name: values["q"] for name, values in scores({"q": order}, {"q": supports}).items()}
    ranks = sorted(order.index(id) + 1 for id in supports if id in order)
    for k in CUTOFFS:
        within = sum(rank <= k for rank in ranks)
        assert found[f"R@{k}"] == pytest.approx(within / len(supports))
        assert found[f"All@{k}"] == (within == len(supports))
    assert found["RR"] == pytest.approx(1 / ranks[0] if ranks else 0)
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(supports), 10) + 1))
    assert found["nDCG@10"] == pytest.approx(gain / ideal)


def test_a_question_without_an_order_counts_as_0() -> None:
    found = scores({"one": ["a", "b"], "two": []}, {"one": ["a", "b"], "two": ["a"], "three": ["b"]})
    assert found["R@2"] == found["All@2"] == {"one": 1, "two": 0, "three": 0}
    assert list(found) == ["R@2", "R@3", "R@5", "R@10", "All@2", "All@3", "All@5", "All@10", "RR", "nDCG@10"]


def test_more_supports_than_k_are_never_all_found() -> None:
    found = scores({"q": ["a", "b", "c"]}, {"q": ["a", "b", "c"]})
    assert (found["All@2"]["q"], found["R@2"]["q"], found["All@3"]["q"]) == (0, pytest.approx(2 / 3), 1)


def test_a_question_without_a_support_is_named() -> None:
    with pytest.raises(ValueError, match="question 'q7' has no support"):
        scores({"q7": ["a"]}, {"q7": []})


def test_an_order_with_a_passage_twice_is_named() -> None:
    with pytest.raises(ValueError, match="question 'q7': its order has a passage twice"):
        scores({"q7": ["a", "b", "a"]}, {"q7": ["a"]})
