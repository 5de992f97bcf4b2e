"""EM and F1 are the official scripts', on real questions and where the three differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.measures.answers import SCORERS, normalised, scorer

DATASETS = ["hotpotqa", "2wikimultihopqa", "musique"]
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(["a", "The", "yes", "no", "Rome", "1,5", "-", "é"])).map(" ".join)
)


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


@pytest.mark.parametrize("dataset", SCORERS)
@pytest.mark.parametrize(("prediction", "answers", "expected"), ALIKE)
def test_the_official_scripts_agree_on(
    dataset: str, prediction: str, answers: list[str], expected: tuple[float, float]
) -> None:
    assert scorer(dataset)(prediction, answers) == pytest.approx(expected)


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


@pytest.mark.parametrize(("prediction", "answers", "closed", "open_"), APART)
def test_the_official_scripts_differ_on(
    prediction: str, answers: list[str], closed: tuple[float, float], open_: tuple[float, float]
) -> None:
    assert scorer("hotpotqa")(prediction, answers) == pytest.approx(closed)
    assert scorer("2wikimultihopqa")(prediction, answers) == pytest.approx(closed)
    assert scorer("musique")(prediction, answers) == pytest.approx(open_)


def test_a_data_set_without_official_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="'squad' has no official answer scores: must be one of hotpotqa"):
        scorer("squad")


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.sampled_from(DATASETS), TEXTS, TEXTS)
def test_scores_lie_between_0_and_1_and_do_not_care_who_is_right(dataset: str, one: str, other: str) -> None:
    score = scorer(dataset)
    em, f1 = score(one, [other])
    assert em in (0, 1)
    assert 0 <= f1 <= 1
    assert score(other, [one]) == (em, pytest.approx(f1))


@given(TEXTS, st.lists(TEXTS, min_size=1), TEXTS)
def test_another_alias_never_makes_a_score_worse(prediction: str, answers: list[str], alias: str) -> None:
    score = scorer("musique")
    (em, f1), (more_em, more_f1) = score(prediction, answers), score(prediction, [*answers, alias])
    assert more_em >= em
    assert more_f1 >= f1


@given(st.sampled_from(DATASETS), TEXTS, TEXTS)
def test_case_articles_and_white_space_change_nothing(dataset: str, one: str, other: str) -> None:
    score, shouted = scorer(dataset), normalised(one).upper()
    assert score(f"  The {shouted.lower()}\n", [other]) == score(shouted, [other])
