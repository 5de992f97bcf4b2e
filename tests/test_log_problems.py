"""What is logged for someone who never looks at a ranking."""

import logging

import pytest

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted


def heard(caplog: pytest.LogCaptureFixture, said: list[str], n: int = 4) -> str:
    """What is logged of a ranking whose model says these things in turn, again and again."""
    answers = iter(said * 20)
    ranking = Reranker(Scripted(lambda messages: next(answers)), size=2, k=3).rank("which?", [str(i) for i in range(n)])
    with caplog.at_level(logging.WARNING, "rankr1_rag"):
        ranking.log_problems()
    return caplog.text


def test_good_answers_are_nothing_to_speak_of(caplog: pytest.LogCaptureFixture) -> None:
    assert heard(caplog, ["<answer>[1]</answer>"]) == ""
    assert heard(caplog, ["<answer>[1]</answer>"] * 9 + ["dunno"]) == ""


def test_answers_that_name_no_passage_are_told_with_the_last_of_them(caplog: pytest.LogCaptureFixture) -> None:
    text = heard(caplog, ["I like them all", "dunno"])
    assert "answers name no passage" in text
    assert "'dunno'" in text or "'I like them all'" in text
    assert "query 'which?'" in text


def test_half_of_them_is_too_many(caplog: pytest.LogCaptureFixture) -> None:
    assert "answers name no passage" in heard(caplog, ["<answer>[1]</answer>", "dunno"])


def test_a_ranking_without_comparisons_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    assert heard(caplog, ["dunno"], n=1) == ""


def test_a_hidden_failure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fails(messages: object) -> str:
        raise OSError("gone")

    with caplog.at_level(logging.WARNING, "rankr1_rag"):
        Reranker(Scripted(fails), on_failure="first_stage").rank("which?", ["a", "b"]).log_problems()
    assert "keeps the first-stage order" in caplog.text
    assert "gone" in caplog.text
