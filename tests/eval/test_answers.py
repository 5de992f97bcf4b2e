"""EM and F1 are the official scripts', on real questions and where the three differ; supports by their definitions."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_eval.measures.answers import CUTOFFS, SCORERS, normalised, scorer, scores

DATASETS = st.sampled_from(["hotpotqa", "2wikimultihopqa", "musique"])
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(["a", "The", "yes", "no", "Rome", "1,5", "-", "é"])).map(" ".join)
)
ORDERS = st.permutations(list("abcdefghijklmn")).flatmap(lambda ids: st.integers(0, 14).map(lambda n: ids[:n]))
SUPPORTS = st.sets(st.sampled_from("abcdez"), min_size=1).map(sorted)

ALIKE = [
    ("Chief of Protocol", ["chief of protocol."], (1, 1)),
    ("the Eiffel Tower", ["Eiffel tower"], (1, 1)),
    ("1,234", ["1234"], (1, 1)),
    ("9,984 Ronald Shusett", ["Ronald Shusett"], (0, 4 / 5)),
    ("12 May 1990", ["May 12, 1990"], (0, 1)),
    ("May 1990", ["12 May 1990"], (0, 4 / 5)),
    ("1.5", ["15"], (1, 1)),
    ("Łódź", ["Lodz"], (0, 0)),
    ("“Orioles”", ["Orioles"], (0, 0)),
    ("Rome Rome", ["Rome"], (0, 2 / 3)),
    ("anthem", ["them"], (0, 0)),
    ("a-ha", ["aha"], (1, 1)),
    ("well-known", ["well known"], (0, 0)),
    ("new\n York\t", ["New York"], (1, 1)),
    ("", ["Rome"], (0, 0)),
    ("the the", ["Rome"], (0, 0)),
    ("yes", ["Yes."], (1, 1)),
    ("yes", ["no"], (0, 0)),
]
APART = [
    ("yes it is", ["yes"], (0, 0), (0, 1 / 2)),  # HotpotQA: yes or nothing
    ("no", ["no one"], (0, 0), (0, 2 / 3)),
    ("noanswer", ["noanswer found"], (0, 0), (0, 2 / 3)),
    ("the the", ["A"], (1, 0), (1, 1)),  # without a token left, SQuAD's F1 says that they agree
    ("", ["the"], (1, 0), (1, 1)),
    ("The Big Apple", ["New York", "Big Apple"], (0, 0), (1, 1)),  # an alias counts for MuSiQue alone
    ("New Apple", ["New York", "Big Apple Core"], (0, 1 / 2), (0, 1 / 2)),
    ("Big Core", ["New York", "Big Apple Core"], (0, 0), (0, 4 / 5)),
]


@pytest.mark.parametrize("dataset", SCORERS)
@pytest.mark.parametrize(
    ("prediction", "answers", "closed", "open_"), [*((*one, one[-1]) for one in ALIKE), *APART], ids=str
)
def test_scores_are_those_of_the_official_scripts(
    dataset: str, prediction: str, answers: list[str], closed: tuple[float, float], open_: tuple[float, float]
) -> None:
    expected = open_ if dataset == "musique" else closed
    assert scorer(dataset)(prediction, answers) == pytest.approx(expected)


def test_a_data_set_without_official_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="'squad' has no official answer scores: must be one of hotpotqa"):
        scorer("squad")


@given(DATASETS, TEXTS, TEXTS)
def test_scores_lie_between_0_and_1_and_do_not_depend_on_which_side_is_right_case_articles_or_white_space(
    dataset: str, one: str, other: str
) -> None:
    score, bare = scorer(dataset), normalised(one)
    em, f1 = score(one, [other])
    assert em in (0, 1)
    assert 0 <= f1 <= 1
    assert score(other, [one]) == (em, pytest.approx(f1))
    assert normalised(bare) == bare
    assert score(f"  The {bare.upper().lower()}\n", [other]) == score(bare.upper(), [other])


@given(TEXTS, st.lists(TEXTS, min_size=1), TEXTS)
def test_another_alias_never_makes_a_score_worse(prediction: str, answers: list[str], alias: str) -> None:
    before, after = (scorer("musique")(prediction, known) for known in (answers, [*answers, alias]))
    assert after[0] >= before[0]
    assert after[1] >= before[1]


@settings(max_examples=100)
@given(ORDERS, SUPPORTS)
def test_support_recall_all_supports_and_ranks_are_as_defined(order: list[str], supports: list[str]) -> None:
    found = {name: values["q"] for name, values in scores({"q": order}, {"q": supports}).items()}
    ranks = sorted(order.index(id) + 1 for id in supports if id in order)
    for k in CUTOFFS:
        within = sum(rank <= k for rank in ranks)
        assert found[f"R@{k}"] == pytest.approx(within / len(supports))
        assert found[f"All@{k}"] == (within == len(supports)), "never where there are more supports than k"
    assert found["RR"] == pytest.approx(1 / ranks[0] if ranks else 0)
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(supports), 10) + 1))
    assert found["nDCG@10"] == pytest.approx(gain / ideal)


def test_a_question_without_an_order_counts_as_0() -> None:
    found = scores({"one": ["a", "b"], "two": []}, {"one": ["a", "b"], "two": ["a"], "three": ["b"]})
    assert found["R@2"] == found["All@2"] == {"one": 1, "two": 0, "three": 0}
    assert list(found) == ["R@2", "R@3", "R@5", "R@10", "All@2", "All@3", "All@5", "All@10", "RR", "nDCG@10"]


@pytest.mark.parametrize(
    ("order", "supports", "problem"),
    [(["a"], [], "question 'q7' has no support"), (["a", "b", "a"], ["a"], "'q7': its order has a passage twice")],
)
def test_a_question_that_cannot_be_scored_is_named(order: list[str], supports: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        scores({"q7": order}, {"q7": supports})
