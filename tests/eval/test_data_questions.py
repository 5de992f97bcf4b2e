"""Questions of real samples, and the seeded choice of those that are asked and of those that make the corpus."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.data import DATASETS, load
from rankr1_eval.data.loading import corpus as corpus_of
from rankr1_eval.data.loading import sample
from rankr1_eval.types import Question, passage_of, pooled
from rankr1_rag import Query

HOTPOTQA = "hotpotqa/dev_distractor_sample.json"
TWOWIKI = "2wikimultihopqa/dev_sample.json"
MUSIQUE = "musique/musique_ans_v1.0_dev_sample.jsonl"
TWOWIKI_KINDS = {"compositional": (2, 127), "bridge_comparison": (4, 83), "comparison": (2, 75), "inference": (2, 42)}
MUSIQUE_KINDS = {"2hop": (2, 75), "3hop1": (3, 13), "4hop1": (4, 8), "4hop3": (4, 3), "3hop2": (3, 1)}


@pytest.mark.parametrize(
    ("name", "file", "corpus", "kinds"),
    [
        ("hotpotqa", HOTPOTQA, 3369, {"bridge": (2, 277), "comparison": (2, 63)}),
        ("2wikimultihopqa", TWOWIKI, 2267, TWOWIKI_KINDS),
        ("musique", MUSIQUE, 1769, MUSIQUE_KINDS),
    ],
)
def test_a_dev_sample_has_its_ids_types_hops_and_corpus_and_is_the_same_gzipped(
    shared_data: Path, tmp_path: Path, name: str, file: str, corpus: int, kinds: dict[str, tuple[int, int]]
) -> None:
    questions = load(name, shared_data / file)
    official = json.loads((shared_data / "golden/official_answer_scores.json").read_text())[name]["items"]
    assert [question.query.id for question in questions] == list(official)
    assert len(pooled(questions)) == corpus
    found = Counter((question.type, question.hops, len(question.supports)) for question in questions)
    assert found == {(type, hops, hops): count for type, (hops, count) in kinds.items()}, "a support for each hop"
    assert all(set(one.supports) <= {passage.id for passage in one.passages} for one in questions)
    packed = tmp_path / f"{Path(file).name}.gz"
    packed.write_bytes(gzip.compress((shared_data / file).read_bytes()))
    assert load(name, packed) == questions


@pytest.mark.parametrize(
    ("name", "file", "count", "corpus"),
    [
        ("hotpotqa", "hotpotqa_train_500.jsonl", 500, 4968),
        ("2wikimultihopqa", "2wikimultihopqa_train_500.json", 500, 3112),
        ("musique", "musique_train_100.json", 100, 1890),
    ],
)
def test_every_question_of_a_train_sample_has_supports_among_its_paragraphs(
    shared_data: Path, name: str, file: str, count: int, corpus: int
) -> None:
    questions = load(name, shared_data / "train" / file)
    assert (len({question.query.id for question in questions}), len(pooled(questions))) == (count, corpus)
    for question in questions:
        assert 0 < len(question.supports) == len({*question.supports})
        assert {*question.supports} <= {passage.id for passage in question.passages}
        assert question.answers[0].strip()


@pytest.mark.parametrize(("name", "file", "joint"), [("hotpotqa", HOTPOTQA, ""), ("2wikimultihopqa", TWOWIKI, " ")])
def test_sentences_are_joined_as_in_the_data_set(shared_data: Path, name: str, file: str, joint: str) -> None:
    context = json.loads((shared_data / file).read_text())[0]["context"]
    expected = [passage_of(title, joint.join(sentences).strip()) for title, sentences in context]
    assert list(load(name, shared_data / file)[0].passages) == expected
    assert not any("  " in passage.text for passage in expected)


def test_supports_and_aliases_of_musique_are_those_of_its_records(shared_data: Path) -> None:
    records = [json.loads(line) for line in (shared_data / MUSIQUE).read_text().splitlines()]
    questions = load("musique", shared_data / MUSIQUE)
    for record, question in zip(records, questions, strict=True):
        steps = {step["paragraph_support_idx"] for step in record["question_decomposition"]}
        assert {question.passages[step].id for step in steps} == set(question.supports)
    assert sum(len(question.answers) > 1 for question in questions) == 35


def test_every_layout_of_the_file_and_the_fullwiki_name_give_the_same(shared_data: Path, tmp_path: Path) -> None:
    expected = load("hotpotqa", shared_data / HOTPOTQA)
    assert load("hotpotqa-fullwiki", shared_data / HOTPOTQA) == expected
    records = json.loads((shared_data / HOTPOTQA).read_text())[:20]
    (tmp_path / "list.json").write_text(json.dumps(records, indent=2))
    (tmp_path / "lines.jsonl").write_text("\n\n".join(map(json.dumps, records)))
    assert load("hotpotqa", tmp_path / "list.json") == load("hotpotqa", tmp_path / "lines.jsonl") == expected[:20]


def test_an_unknown_data_set_is_refused_with_those_known() -> None:
    with pytest.raises(ValueError, match=f"'squad' is unknown: must be one of {', '.join(DATASETS)}"):
        load("squad", "file.json")


# The choice among them: a matter of the seed and the ids alone.

QUESTIONS = [
    Question(Query(f"q{n}", f"question {n}"), ("yes",), (), (passage_of("shared", ""), passage_of(f"own {n}", "x")))
    for n in range(60)
]


def ids(questions: Sequence[Question]) -> list[str]:
    return [question.query.id for question in questions]


@given(n=st.integers(1, 70), more=st.integers(0, 59), seed=st.integers())
def test_a_sample_has_n_questions_in_file_order_and_a_greater_one_holds_it(n: int, more: int, seed: int) -> None:
    chosen = sample(QUESTIONS, n, seed)
    assert len(chosen) == min(n, 60)
    assert chosen == [question for question in QUESTIONS if question in chosen]
    assert set(ids(chosen)) <= set(ids(sample(QUESTIONS, n + more, seed)))


@given(order=st.permutations(QUESTIONS), seed=st.integers(0, 3))
def test_the_order_of_the_file_changes_nothing_but_the_order(order: list[Question], seed: int) -> None:
    assert set(ids(sample(order, 10, seed))) == set(ids(sample(QUESTIONS, 10, seed)))


def test_neither_the_global_random_state_nor_the_process_matters() -> None:
    random.seed(1)
    before = random.getstate()
    assert ids(sample(QUESTIONS, 5, 7)) == ["q1", "q6", "q26", "q32", "q58"], "the same in every process"
    assert random.getstate() == before


def test_seeds_choose_differently_and_every_question_equally_often() -> None:
    counts = Counter(id for seed in range(600) for id in ids(sample(QUESTIONS, 10, seed)))
    assert len(counts) == 60
    assert all(65 <= count <= 140 for count in counts.values()), counts  # 100 expected, 9 the standard deviation


def test_all_questions_are_taken_where_there_are_no_more() -> None:
    assert sample(QUESTIONS, None, 0) == sample(QUESTIONS, 60, 0) == sample(QUESTIONS, 1000, 0) == QUESTIONS
    assert corpus_of(QUESTIONS, QUESTIONS[:3], None, 0) == pooled(QUESTIONS)


@given(n=st.integers(1, 60), extra=st.integers(0, 70), seed=st.integers(0, 99))
def test_a_corpus_pools_those_asked_and_others_in_file_order(n: int, extra: int, seed: int) -> None:
    asked = sample(QUESTIONS, n, seed)
    found = corpus_of(QUESTIONS, asked, n + extra, seed)
    assert len(found) == len(set(found)) == min(n + extra, 60) + 1
    assert set(pooled(asked)) <= set(found)
    assert list(found) == [passage for passage in pooled(QUESTIONS) if passage in found]


@pytest.mark.parametrize(
    ("choose", "arguments", "told"),
    [
        (sample, (QUESTIONS, 0, 0), "questions=0: must be at least 1"),
        (sample, (QUESTIONS, -1, 0), "questions=-1: must be at least 1"),
        (corpus_of, (QUESTIONS, QUESTIONS[:3], 2, 0), "pool=2: must be at least the 3 questions that are asked"),
    ],
)
def test_a_number_that_is_too_small_is_refused(choose: Any, arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        choose(*arguments)
