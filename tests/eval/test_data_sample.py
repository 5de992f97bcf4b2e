"""Which questions are asked, and which contribute to the corpus: a matter of the seed and the ids alone."""

import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.data.loading import corpus, sample
from rankr1_eval.types import Question, passage_of, pooled
from rankr1_rag import Query

QUESTIONS = [
    Question(Query(f"q{n}", f"question {n}"), ("yes",), (), (passage_of("shared", ""), passage_of(f"own {n}", "x")))
    for n in range(60)
]


def ids(questions: Sequence[Question]) -> list[str]:
    return [question.query.id for question in questions]


@given(n=st.integers(1, 70), seed=st.integers())
def test_a_sample_has_n_questions_in_file_order(n: int, seed: int) -> None:
    chosen = sample(QUESTIONS, n, seed)
    assert len(chosen) == min(n, 60)
    assert chosen == [question for question in QUESTIONS if question in chosen]


@given(n=st.integers(1, 59), more=st.integers(1, 59), seed=st.integers())
def test_a_greater_sample_holds_the_smaller_one(n: int, more: int, seed: int) -> None:
    assert set(ids(sample(QUESTIONS, n, seed))) <= set(ids(sample(QUESTIONS, n + more, seed)))


@given(order=st.permutations(QUESTIONS), seed=st.integers(0, 3))
def test_the_order_of_the_file_changes_nothing_but_the_order(order: list[Question], seed: int) -> None:
    assert set(ids(sample(order, 10, seed))) == set(ids(sample(QUESTIONS, 10, seed)))


def test_neither_the_global_random_state_nor_the_process_matters() -> None:
    random.seed(1)
    before = random.getstate()
    chosen = ids(sample(QUESTIONS, 5, 7))
    assert random.getstate() == before
    random.seed(2)
    assert ids(sample(QUESTIONS, 5, 7)) == chosen
    code = (
        "from rankr1_eval.data.loading import sample; from rankr1_eval.types import Question;"
        "from rankr1_rag import Query;"
        "print([q.query.id for q in sample([Question(Query(f'q{n}', ''), ('',), (), ()) for n in range(60)], 5, 7)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == str(chosen)


def test_seeds_choose_differently_and_every_question_equally_often() -> None:
    counts = dict.fromkeys(ids(QUESTIONS), 0)
    for seed in range(600):
        for id in ids(sample(QUESTIONS, 10, seed)):
            counts[id] += 1
    assert all(65 <= count <= 140 for count in counts.values()), counts  # 100 expected, 9 the standard deviation


@pytest.mark.parametrize("n", [None, 60, 1000])
def test_all_questions_are_taken_where_there_are_no_more(n: int | None) -> None:
    assert sample(QUESTIONS, n, 0) == QUESTIONS


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_question_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"questions={n}: must be at least 1"):
        sample(QUESTIONS, n, 0)


@given(n=st.integers(1, 60), extra=st.integers(0, 70), seed=st.integers(0, 99))
def test_a_corpus_pools_those_asked_and_others_in_file_order(n: int, extra: int, seed: int) -> None:
    asked = sample(QUESTIONS, n, seed)
    found = corpus(QUESTIONS, asked, n + extra, seed)
    assert len(found) == len(set(found)) == min(n + extra, 60) + 1
    assert set(pooled(asked)) <= set(found)
    assert list(found) == [passage for passage in pooled(QUESTIONS) if passage in found]


def test_without_a_number_all_questions_contribute() -> None:
    assert corpus(QUESTIONS, QUESTIONS[:3], None, 0) == pooled(QUESTIONS)


def test_a_corpus_must_hold_what_is_asked() -> None:
    with pytest.raises(ValueError, match="pool=2: must be at least the 3 questions that are asked"):
        corpus(QUESTIONS, QUESTIONS[:3], 2, 0)
